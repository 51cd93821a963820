r"""Do a grid's claims hold from run to run? From results.jsonl of run_grid.py, of the grid run once or several times.

python experiments/over_runs.py experiments/an4.yaml /runs/results.jsonl
python experiments/over_runs.py experiments/an4.yaml results/an4.jsonl results/an4_h100.jsonl --subset valid
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from scipy import stats
from tabulate import tabulate

from experiments.claims import Claim, Model
from experiments.grid_file import read_grid
from experiments.outcomes import mixed
from experiments.results import KEYS
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.scoring.bootstrap import LEVEL, Interval

RULE = """\
A claim holds where the interval of the mean difference lies below its margin (0 if it has none), and does not hold
where it lies above. Else, or from fewer than three pairs of runs, it is undecided. Intervals are Student's t, 95 %,
over runs, paired by file and seed: what other utterances would do they do not say, compare.py's do."""
_FEWEST = 3


class Run(NamedTuple):
    """One run: which file of results it stands in, counted from 0, and its seed."""

    file: int
    seed: int


Results = dict[Run, dict[str, dict[str, Any]]]  # run -> arm -> its line


class Verdict(NamedTuple):
    """What became of a claim.

    Attributes:
        outcome: ``holds``, ``does not hold``, ``undecided`` or ``not run``.
        mean: better's rate minus worse's in percentage points; None of fewer than three pairs.
        by_run: the same of each pair.
    """

    outcome: str
    mean: Interval | None
    by_run: dict[Run, float]


def read_results(files: Sequence[Path], corpus: str) -> Results:
    """The lines of one corpus in some files.

    Raises:
        UserError: a file is missing, has a damaged line, one run twice, or runs of other data or from another encoder.
    """
    found: Results = {}
    first: dict[str, Any] | None = None
    for number, file in enumerate(files):
        if not file.is_file():
            raise UserError(f"{file} does not exist: give results.jsonl of run_grid.py")
        for at, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            result = _parsed(line)
            if result is None:
                raise UserError(f"{file}, line {at} is damaged: it is no result of run_grid.py")
            if result["corpus"] != corpus:
                continue
            first = first or result
            for key in ("data_sha256", "encoder_sha256"):
                if result[key] != first[key]:
                    raise UserError(f"{file}, line {at}: {key} is not that of the first run: they cannot be compared")
            arms = found.setdefault(Run(number, result["seed"]), {})
            if result["arm"] in arms:
                raise UserError(f"{file} has {result['arm']} of seed {result['seed']} twice: take one line away")
            arms[result["arm"]] = result
    if not found:
        raise UserError(f"{', '.join(map(str, files))}: no result of {corpus} in it")
    return dict(sorted(found.items()))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        result = json.loads(line)
    except ValueError:
        return None
    return result if isinstance(result, dict) and set(KEYS) <= set(result) else None


def rate(result: dict[str, Any], layer: int, kind: str, subset: str) -> float | None:
    """WER, CER or spike disagreement of an exit in percent (``wer``, ``cer``, ``spikes``); None if not measured."""
    if kind == "spikes":
        found = [one["spike_disagreement"]["value"] for one in result["alignment"] if one["exit"] == layer]
        return 100 * found[0] if found and found[0] is not None else None
    found = [one[kind] for one in result["scores"] if one["exit"] == layer and one["subset"] == subset]
    return found[0] if found else None


def rates(results: Results, model: Model, kind: str, subset: str) -> dict[Run, float]:
    """Run -> a rate of one model, where it was measured."""
    found = {run: rate(arms[model.arm], model.exit, kind, subset) for run, arms in results.items() if model.arm in arms}
    return {run: value for run, value in found.items() if value is not None}


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Mean of independent values with its t interval; None of fewer than three, which tell next to nothing."""
    if len(values) < _FEWEST:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


def judge(results: Results, claim: Claim, subset: str) -> Verdict:
    """What becomes of a claim, by :data:`RULE`.

    Raises:
        UserError: the two of a pair were trained for different numbers of updates.
    """
    better, worse = (rates(results, model, claim.rate, subset) for model in (claim.better, claim.worse))
    by_run = {run: better[run] - worse[run] for run in better if run in worse}
    for run in by_run:
        updates = {results[run][model.arm]["updates"] for model in (claim.better, claim.worse)}
        if len(updates) > 1:
            told = " and ".join(map(str, sorted(updates)))
            raise UserError(f"updates of seed {run.seed} differ ({told}), so the claim {claim.text} cannot be judged")
    mean = mean_interval(list(by_run.values()))
    if not by_run:
        return Verdict("not run", None, by_run)
    if mean is not None:
        if mean.high < claim.margin:
            return Verdict("holds", mean, by_run)
        if mean.low > claim.margin:
            return Verdict("does not hold", mean, by_run)
    return Verdict("undecided", mean, by_run)


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
        "spike disagreement %, mean; sd",
    )
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def verdicts(results: Results, claims: Sequence[Claim], subset: str) -> str:
    """A row a claim."""
    rows = []
    for claim in claims:
        verdict = judge(results, claim, subset)
        runs = len(verdict.by_run)
        few = f", of {runs} run{'s' * (runs > 1)}" if 0 < runs < _FEWEST else ""
        rows.append(
            (claim.text, claim.compared, _shown(verdict.mean), _by_file(verdict.by_run), f"**{verdict.outcome}**{few}")
        )
    header = ("claim", "compared", "points, mean [95 %]", "of each pair", "outcome")
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def differences(results: Results, grid: Mapping[str, Any], arm: str, subset: str) -> str:
    """A row a model of another arm: its WER minus that of this arm's exit of as many layers, or else of its lowest."""
    exits = grid["arms"][arm]["exits"]
    rows = []
    for model in _models(grid):
        other = Model(arm, model.exit if model.exit in exits else min(exits))
        verdict = judge(results, Claim("", model, other), subset)
        if model.arm != arm and verdict.by_run:
            rows.append((f"{model} minus {other}", _shown(verdict.mean), _by_file(verdict.by_run)))
    header = ("WER", "points, mean [95 %]", "of each pair")
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def _models(grid: Mapping[str, Any]) -> list[Model]:
    return [Model(arm, layer) for arm, entry in grid["arms"].items() for layer in entry["exits"]]


def _shown(interval: Interval | None) -> str:
    return f"{interval.value:.1f} [{interval.low:.1f}, {interval.high:.1f}]" if interval else ""


def _spread(values: Iterable[float]) -> str:
    known = list(values)
    deviation = f"; {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.1f}{deviation}" if known else ""


def _by_file(values: dict[Run, float]) -> str:
    """Those of one file between commas, the files between bars."""
    files = itertools.groupby(values.items(), key=lambda item: item[0].file)
    return " / ".join(", ".join(f"{value:.1f}" for _, value in group) for _, group in files)


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
    args = parser.parse_args(arguments)
    grid = read_grid(args.grid)
    if args.subset not in grid["subsets"]:
        raise UserError(f"--subset {args.subset}: the grid has {', '.join(grid['subsets'])}")
    if args.minus is not None and args.minus not in grid["arms"]:
        raise UserError(f"--minus {args.minus}: the grid has {', '.join(grid['arms'])}")
    claims = [Claim.read(entry, grid["arms"]) for entry in grid["claims"]]
    results = read_results(args.results, grid["corpus"])
    lines = [line for arms in results.values() for line in arms.values()]
    parts = [table(results, grid, args.subset), *mixed(lines, list(grid["arms"]))]
    if args.minus is not None:
        parts.append(differences(results, grid, args.minus, args.subset))
    parts.append(verdicts(results, claims, args.subset))
    print("\n\n".join([*parts, RULE]))


if __name__ == "__main__":
    sys.exit(run_command("over_runs", main))
