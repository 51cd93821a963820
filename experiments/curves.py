"""Learning curves of fairseq runs: losses, alpha and validation WER over updates, from their JSON logs.

python experiments/curves.py "SKD=/runs/skd/hydra_train.log" "CTC=/runs/ctc/hydra_train.log" --out results/curves.png
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files import replacing

_LINE = re.compile(r"\[(train_inner|valid)\]\[INFO\] - (\{.*\})$")
Curve = list[tuple[float, float]]


def read_log(path: Path) -> dict[str, Curve]:
    """Curves of a run: name -> (update, value) pairs; names in validation begin with ``valid_``.

    Args:
        path: what fairseq-hydra-train printed or wrote as hydra_train.log with ``common.log_format=json``.

    Raises:
        UserError: no such file, or no JSON log lines in it.
    """
    if not path.is_file():
        raise UserError(f"log {path} does not exist")
    curves: dict[str, Curve] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.search(line)
        if not match:
            continue
        entry: dict[str, Any] = json.loads(match[2])
        updates = float(entry.get("num_updates", entry.get("valid_num_updates", "nan")))
        for name, value in entry.items():
            curves.setdefault(name, []).append((updates, float(value)))
    if not curves:
        raise UserError(f"log {path} has no JSON lines: train with common.log_format=json")
    return curves


def draw(runs: dict[str, dict[str, Curve]], out: Path) -> None:
    """One row of three panels; a run keeps its colour, an exit its line style."""
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for number, (name, curves) in enumerate(runs.items()):
        colour = f"C{number}"
        for term, style in (("ctc_teacher", "-"), ("ctc_student", "--"), ("skd", ":")):
            _plot(panels[0], curves.get(term), f"{name} {term}", colour, style)
        _plot(panels[1], curves.get("alpha"), f"{name} alpha", colour, "-")
        for term, style in (("blank_teacher", "--"), ("blank_student", ":")):
            _plot(panels[1], curves.get(term), f"{name} {term}", colour, style)
        for term, style in (("valid_wer", "-"), ("valid_student_wer", "--")):
            _plot(panels[2], curves.get(term), f"{name} {term}", colour, style)
    titles = ("training loss, bits a sentence", "alpha; share of blank frames", "WER on valid, %")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="updates")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    panels[0].set_yscale("log")
    with replacing(out) as beside:
        figure.savefig(beside, dpi=110)
    plt.close(figure)


def _plot(axes: Axes, curve: Curve | None, label: str, colour: str, style: str) -> None:
    if curve:
        axes.plot(*zip(*curve, strict=True), style, color=colour, label=label, linewidth=1.2)


def main() -> None:
    """Arguments in, one figure out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG", help="a run's name and its log")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    args = parser.parse_args()
    runs = {}
    for run in args.runs:
        name, sign, log = run.rpartition("=")
        if not sign:
            raise UserError(f"{run}: give each run as NAME=LOG")
        runs[name] = read_log(Path(log))
    draw(runs, args.out)
    print(args.out)


if __name__ == "__main__":
    sys.exit(run_command("curves", main))
