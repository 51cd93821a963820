r"""Do a grid's claims hold from run to run? From results.jsonl of run_grid.py, of the grid run once or several times.

python experiments/over_runs.py experiments/an4.yaml /runs/results.jsonl
python experiments/over_runs.py experiments/an4.yaml results/an4.jsonl results/an4_h100.jsonl --subset valid
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from experiments.claims import RATES, Claim, Model
from experiments.grid_file import read_grid
from experiments.outcomes import mixed
from experiments.repetitions import FEWEST, Repetition, Results, Verdict, judge, rates, read_results
from experiments.tables import bounds, markdown, one_digit, with_bounds
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.extras import require

RULE = f"""\
A claim holds where the intervals of the mean difference lie below its margin (0 if it has none), and does not hold
where they lie above; else, or from fewer than {FEWEST} seeds, it is undecided. The first is Student's t, 95 %, over
runs, paired by file and seed. Runs of one seed have the order of utterances, the masks and the heads' first weights in
common, so the second is over the means of seeds, each of which counts once; of one file the two are one. What other
utterances would do they do not say, compare.py's do."""


def table(results: Results, grid: Mapping[str, Any], subset: str) -> str:
    """A row a model: mean, spread and single values of its error rates over runs."""
    rows = []
    for model in _models(grid):
        wer = rates(results, model, "wer", subset)
        if wer:
            others = (rates(results, model, kind, subset).values() for kind in ("cer", "spikes"))
            rows.append(
                (model.arm, str(model.exit), str(len(wer)), _spread(wer.values()), _by_file(wer), *map(_spread, others))
            )
    header = (
        "arm",
        "layers",
        "runs",
        "WER %, mean; sd",
        "of each run",
        "CER %, mean; sd",
        f"spike disagreement %{_measured_on(results, subset)}, mean; sd",
    )
    return markdown(rows, header)


def verdicts(results: Results, claims: Sequence[Claim], subset: str) -> str:
    """A row a claim."""
    rows = []
    for claim in claims:
        verdict = judge(results, claim, subset)
        seeds = len({run.seed for run in verdict.by_run})
        few = f", of {seeds} seed{'s' * (seeds > 1)}" if 0 < seeds < FEWEST else ""
        compared, outcome = _compared(claim, results, subset), f"**{verdict.outcome}**{few}"
        rows.append((claim.text, compared, _shown(verdict), _by_file(verdict.by_run), outcome))
    header = ("claim", "compared", "points, mean [95 % over runs] [over seeds]", "of each pair", "outcome")
    return markdown(rows, header)


def differences(results: Results, grid: Mapping[str, Any], arm: str, rate: str, subset: str) -> str:
    """A row a model of another arm: its rate minus that of this arm's exit of as many layers, or else of its lowest."""
    exits = grid["arms"][arm]["exits"]
    rows = []
    for model in _models(grid):
        claim = Claim("", model, Model(arm, model.exit if model.exit in exits else min(exits)), rate)
        verdict = judge(results, claim, subset)
        if model.arm != arm and verdict.by_run:
            rows.append((_compared(claim, results, subset), _shown(verdict), _by_file(verdict.by_run)))
    header = ("compared", "points, mean [95 % over runs] [over seeds]", "of each pair")
    return markdown(rows, header)


def _compared(claim: Claim, results: Results, subset: str) -> str:
    return claim.compared + (_measured_on(results, subset) if claim.rate == "spikes" else "")


def _measured_on(results: Results, subset: str) -> str:
    """On what subset it was looked where models spike, if on another than the one asked for."""
    aligned = {found["subset"] for arms in results.values() for line in arms.values() for found in line["alignment"]}
    return f" ({', '.join(sorted(aligned))})" if aligned - {subset} else ""


def _models(grid: Mapping[str, Any]) -> list[Model]:
    return [Model(arm, layer) for arm, entry in grid["arms"].items() for layer in entry["exits"]]


def _shown(verdict: Verdict) -> str:
    if verdict.runs is None:
        return ""
    shown = with_bounds(verdict.runs)
    if len({run.file for run in verdict.by_run}) > 1:
        shown += f" {bounds(verdict.seeds)}" if verdict.seeds else " [few seeds]"
    return shown


def _spread(values: Iterable[float]) -> str:
    known = list(values)
    deviation = f"; {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.1f}{deviation}" if known else ""


def _by_file(values: dict[Repetition, float]) -> str:
    """Those of one file between commas, the files between bars."""
    files = itertools.groupby(values.items(), key=lambda item: item[0].file)
    return " / ".join(", ".join(one_digit(value) for _, value in group) for _, group in files)


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, two tables out."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=RULE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path, help="the grid's YAML, such as experiments/an4.yaml")
    parser.add_argument(
        "results", type=Path, nargs="+", help="results.jsonl of run_grid.py; of each time the grid was run, one"
    )
    parser.add_argument("--subset", default="test", help="on which errors are counted (test)")
    parser.add_argument(
        "--minus",
        metavar="ARM",
        help="a third table: each model minus this arm's of as many layers, or else its lowest exit",
    )
    parser.add_argument("--rate", choices=tuple(RATES), default="wer", help="of that table (%(default)s)")
    args = parser.parse_args(arguments)
    require(["scipy"], "analysis", "experiments/over_runs.py")
    grid = read_grid(args.grid)
    if args.subset not in grid["subsets"]:
        raise UserError(f"--subset {args.subset}: the grid has {', '.join(grid['subsets'])}")
    if args.minus is not None and args.minus not in grid["arms"]:
        raise UserError(f"--minus {args.minus}: the grid has {', '.join(grid['arms'])}")
    claims = [Claim.read(entry, grid["arms"]) for entry in grid["claims"]]
    results = read_results(args.results, grid)
    lines = {f"seed {run.seed} of {args.results[run.file]}": arms for run, arms in results.items()}
    names = [name for name, arms in lines.items() for _ in arms]
    told = mixed([line for arms in lines.values() for line in arms.values()], list(grid["arms"]), names)
    parts = [table(results, grid, args.subset), *told]
    if args.minus is not None:
        parts.append(differences(results, grid, args.minus, args.rate, args.subset))
    parts.append(verdicts(results, claims, args.subset))
    print("\n\n".join([*parts, RULE]))


if __name__ == "__main__":
    sys.exit(run_command("over_runs", main))
