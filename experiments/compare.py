r"""Compare the arms of a grid over runs, or two decoded sets over utterances or speakers.

python -m experiments.compare experiments/an4.yaml /runs/results.jsonl /again/results.jsonl \
    --over runs
python -m experiments.compare /runs/an4/skd/seed1/decode/test-layer6 \
    --minus /runs/an4/ctc/seed1/decode/test-layer12 --over speakers

With ``--over runs`` the claims of the grid are judged. If the grid was run several times, give the
results.jsonl of each time. Several folders on one side are several runs, or several parts of one
set: their utterances are pooled.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.grid import RATES, read_grid
from experiments.results import mixed, read_results
from fairseq_skd.errors import UserError, require, run_command


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "compared",
        type=Path,
        nargs="+",
        help="runs: a grid's YAML and one or more results.jsonl; otherwise: folders written by infer or align",
    )
    parser.add_argument(
        "--over",
        choices=("utterances", "speakers", "runs"),
        required=True,
        help="what the intervals are over",
    )
    parser.add_argument(
        "--minus",
        nargs="+",
        help="runs: an arm that is subtracted from each other model, at the exit of as many layers or, without one, "
        "its lowest; otherwise: the other folders",
    )
    parser.add_argument("--rate", choices=tuple(RATES), default="wer", help="rate to compare (%(default)s)")
    parser.add_argument("--subset", default="test", help="runs: subset to count errors on (%(default)s)")
    parser.add_argument(
        "--tries", action="store_true", help="runs: compare the short tries, on the grid's first subset"
    )
    args = parser.parse_args(arguments)
    require(["scipy"], "analysis", "experiments.compare")
    if args.over == "runs":
        print(_over_runs(args.compared[0], args.compared[1:], args))
        return
    if not args.minus:
        raise UserError(f"--over {args.over} compares folders: give the other folders with --minus")
    from experiments.pairs import compare_folders

    print(compare_folders(args.compared, [Path(folder) for folder in args.minus], args.over, args.rate))


def _over_runs(path: Path, files: Sequence[Path], args: argparse.Namespace) -> str:
    from experiments.judge import Tables

    if not files:
        raise UserError(f"{path} is given without results: add the results.jsonl of run_grid")
    grid = read_grid(path)
    if args.tries:
        grid = grid.short_tries()
    subset = grid.subsets[0] if args.tries else args.subset
    if subset not in grid.subsets:
        raise UserError(f"--subset {subset}: the grid has no such subset, give one of {', '.join(grid.subsets)}")
    if args.minus and (len(args.minus) > 1 or args.minus[0] not in grid.arms):
        raise UserError(f"--minus {' '.join(args.minus)}: give one arm of the grid: {', '.join(grid.arms)}")
    results = read_results(files, grid)
    tables = Tables(results, grid, subset)
    parts = [tables.arms(), *mixed(results, files)]
    if args.minus:
        parts.append(tables.differences(args.minus[0], args.rate))
    return "\n\n".join(parts if args.tries else [*parts, tables.claims()])


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
