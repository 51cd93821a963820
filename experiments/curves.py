"""Learning curves of fairseq runs: losses, alpha and validation WER over updates, from their JSON logs.

python -m experiments.curves "SKD=/runs/skd/hydra_train.log" "CTC=/runs/ctc/hydra_train.log" --out results/curves.png
"""

import argparse
import sys
from pathlib import Path

from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.disk import replacing
from fairseq_skd.reporting.folders import read_log

_FORMATS = (".png", ".pdf", ".svg")


def main() -> None:
    """Arguments in, one figure out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG", help="a run's name and its log")
    parser.add_argument("--out", type=Path, required=True, help="the figure to write, .png, .pdf or .svg")
    args = parser.parse_args()
    if args.out.suffix not in _FORMATS:
        raise UserError(f"--out {args.out}: its name has to end in one of {', '.join(_FORMATS)}")
    named = [run.rpartition("=") for run in args.runs]
    for name, _, log in named:
        if not name:
            raise UserError(f"{log}: give each run as NAME=LOG")
    runs = {name: read_log(Path(log)) for name, _, log in named}
    from fairseq_skd.reporting.page import draw_curves  # matplotlib, whose import chatters unless it is quietened

    with replacing(args.out) as beside:
        draw_curves(runs).savefig(beside, dpi=110, format=args.out.suffix[1:])
    print(args.out)


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("curves", main))
