r"""Draw losses, alpha and validation WER of fairseq runs against updates, from their JSON logs.

python -m experiments.curves "SKD=/runs/skd/hydra_train.log" "CTC=/runs/ctc/hydra_train.log" \
    --out curves.png
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
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG", help="name of a run, and its log")
    parser.add_argument("--out", type=Path, required=True, help="figure to write: .png, .pdf or .svg")
    args = parser.parse_args()
    if args.out.suffix not in _FORMATS:
        raise UserError(f"--out {args.out}: unknown format, give a name that ends in one of {', '.join(_FORMATS)}")
    named = [run.rpartition("=") for run in args.runs]
    for name, _, log in named:
        if not name:
            raise UserError(f"{log} has no name: give each run as NAME=LOG")
    runs = {name: read_log(Path(log)) for name, _, log in named}
    from fairseq_skd.reporting.page import draw_curves  # imports matplotlib, which prints

    with replacing(args.out) as beside:
        draw_curves(runs).savefig(beside, dpi=110, format=args.out.suffix[1:])
    print(args.out)


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("curves", main))
