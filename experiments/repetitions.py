"""Results of runs as run_grid.py wrote them, of a grid run once or several times, and what they say from run to run."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.claims import Claim, Model
from experiments.result_lines import parsed
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.bootstrap import LEVEL, Interval

FEWEST = 3  # of two, an interval tells next to nothing


class Repetition(NamedTuple):
    """Which time the grid was run, as its file of results is counted from 0, and with which seed."""

    file: int
    seed: int


Results = dict[Repetition, dict[str, dict[str, Any]]]  # repetition -> arm -> its line


class Verdict(NamedTuple):
    """What became of a claim.

    Attributes:
        outcome: ``holds``, ``does not hold``, ``undecided`` or ``not run``.
        runs: better's rate minus worse's in percentage points, over runs; None of fewer than three pairs.
        seeds: the same over the means of seeds; None of fewer than three.
        by_run: of each pair.
    """

    outcome: str
    runs: Interval | None
    seeds: Interval | None
    by_run: dict[Repetition, float]


def read_results(files: Sequence[Path], grid: Mapping[str, Any]) -> Results:
    """The lines of a grid's arms in some files; not those of its tries, nor of another corpus.

    Raises:
        UserError: a file is missing, has a damaged line or one that stands elsewhere, too, or has runs that cannot be
            compared: of other data, from another encoder, or, of one arm, of another number of updates.
    """
    found: Results = {}
    seen: dict[str, str] = {}  # line -> where it stands
    for number, file in enumerate(files):
        for at, line in enumerate(_lines(file), 1):
            here = f"{file}, line {at}"
            result = parsed(line)
            if result is None:
                raise UserError(f"{here} is damaged: it is no result of run_grid.py")
            if result["corpus"] != grid["corpus"] or result["arm"] not in grid["arms"]:
                continue
            if line in seen:
                raise UserError(f"{here} is the run of {seen[line]}: it would count twice")
            seen[line] = here
            arms = found.setdefault(Repetition(number, result["seed"]), {})
            if result["arm"] in arms:
                raise UserError(f"{file} has {result['arm']} of seed {result['seed']} twice: take one line away")
            _check_comparable(result, found, here)
            arms[result["arm"]] = result
    if not found:
        raise UserError(f"{', '.join(map(str, files))}: no result of {grid['corpus']} in it")
    return dict(sorted(found.items()))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: give results.jsonl of run_grid.py") from error


def _check_comparable(result: dict[str, Any], found: Results, here: str) -> None:
    for arms in found.values():
        for arm, other in arms.items():
            for key in ("data_sha256", "encoder_sha256", *(["updates"] if arm == result["arm"] else [])):
                if result[key] != other[key]:
                    of = f"{arm} of seed {other['seed']}"
                    raise UserError(f"{here}: {key} is not that of {of}, the first: they cannot be compared")


def rate(result: dict[str, Any], layer: int, kind: str, subset: str) -> float | None:
    """WER, CER or spike disagreement of an exit in percent (``wer``, ``cer``, ``spikes``); None if not measured."""
    if kind == "spikes":
        found = [one["spike_disagreement"]["value"] for one in result["alignment"] if one["exit"] == layer]
        return 100 * found[0] if found and found[0] is not None else None
    found = [one[kind] for one in result["scores"] if one["exit"] == layer and one["subset"] == subset]
    return found[0] if found else None


def rates(results: Results, model: Model, kind: str, subset: str) -> dict[Repetition, float]:
    """A rate of one model, where it was measured."""
    found = {run: rate(arms[model.arm], model.exit, kind, subset) for run, arms in results.items() if model.arm in arms}
    return {run: value for run, value in found.items() if value is not None}


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Mean of independent values with its t interval; None of fewer than three, which tell next to nothing."""
    if len(values) < FEWEST:
        return None
    from scipy import stats  # here, so that a program can say first that it is missing

    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    # Not stats.t.interval, which has no number where all values are equal.
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


def judge(results: Results, claim: Claim, subset: str) -> Verdict:
    """What becomes of a claim, by Student's intervals.

    It holds if the intervals over runs and over the means of seeds lie below the margin, and does not if they lie
    above; else, or from fewer than three seeds, it is undecided. Runs of one seed have the order of utterances, the
    masks and the heads' first weights in common: by the first interval alone, the same seeds run again would count as
    new ones.

    Raises:
        UserError: the two were trained for different numbers of updates.
    """
    better, worse = (rates(results, model, claim.rate, subset) for model in (claim.better, claim.worse))
    by_run = {run: better[run] - worse[run] for run in better if run in worse}
    for run in by_run:
        updates = {results[run][model.arm]["updates"] for model in (claim.better, claim.worse)}
        if len(updates) > 1:
            told = " and ".join(map(str, sorted(updates)))
            raise UserError(f"updates of seed {run.seed} differ ({told}), so the claim {claim.text} cannot be judged")
    runs, seeds = mean_interval(list(by_run.values())), mean_interval(_means_of_seeds(by_run))
    outcome = "undecided" if by_run else "not run"
    if runs is not None and seeds is not None:
        if max(runs.high, seeds.high) < claim.margin:
            outcome = "holds"
        elif min(runs.low, seeds.low) > claim.margin:
            outcome = "does not hold"
    return Verdict(outcome, runs, seeds, by_run)


def _means_of_seeds(by_run: Mapping[Repetition, float]) -> list[float]:
    seeds = sorted({run.seed for run in by_run})
    return [statistics.fmean(value for run, value in by_run.items() if run.seed == seed) for seed in seeds]
