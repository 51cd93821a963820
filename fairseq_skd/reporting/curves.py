"""Learning curves of fairseq runs: losses, alpha and validation WER over updates, from their JSON logs."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairseq_skd.errors import UserError

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
        entry = _entry(line)
        updates = _number(entry.get("num_updates", entry.get("valid_num_updates")))
        for name, value in entry.items():
            number = _number(value)
            if not math.isnan(updates) and not math.isnan(number):
                curves.setdefault(name, []).append((updates, number))
    if not curves:
        raise UserError(f"log {path} has no JSON lines: train with common.log_format=json")
    return curves


def _entry(line: str) -> dict[str, Any]:
    match = _LINE.search(line)
    try:
        found = json.loads(match[2]) if match else {}
    except ValueError:  # cut off while it was written
        found = {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def draw_curves(runs: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """One row of three panels; a run keeps its colour, an exit its line style.

    Args:
        runs: name -> curves of :func:`read_log`; the names stand in the legends unless there is one run only.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, shares, wer = figure.subplots(1, 3)
    for number, (name, curves) in enumerate(runs.items()):
        prefix = f"{name} " if len(runs) > 1 else ""
        colour = f"C{number}"
        for term, style in _terms(curves):
            _plot(losses, curves.get(term), f"{prefix}{term}", colour, style)
        for term, style in (("alpha", "-"), ("blank_teacher", "--"), ("blank_student", ":")):
            _plot(shares, curves.get(term), f"{prefix}{term}", colour, style)
        for term, style in (("valid_wer", "-"), ("valid_student_wer", "--")):
            _plot(wer, curves.get(term), f"{prefix}{term}", colour, style)
    titles = ("loss, bits a sentence", "alpha; share of blank frames", "WER on valid, %")
    for axes, title in zip((losses, shares, wer), titles, strict=True):
        axes.set(title=title, xlabel="updates")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
        else:  # what this criterion does not log
            axes.set_axis_off()
            axes.set_title("")
    if losses.lines:
        losses.set_yscale("log")
    return figure


def _terms(curves: Mapping[str, Curve]) -> Sequence[tuple[str, str]]:
    """What a criterion's loss is made of, and the line style of each term."""
    if "ctc_teacher" in curves:
        return (("ctc_teacher", "-"), ("ctc_student", "--"), ("skd", ":"))
    if "ctc" in curves:
        return (("ctc", "-"), ("kd", ":"))
    return (("loss", "-"), ("valid_loss", "--"))  # another criterion, such as that of pretraining


def _plot(axes: Axes, curve: Curve | None, label: str, colour: str, style: str) -> None:
    if curve:
        marker = "o" if len(curve) < 20 else None
        axes.plot(*zip(*curve, strict=True), style, color=colour, label=label, linewidth=1.2, marker=marker, ms=3)
