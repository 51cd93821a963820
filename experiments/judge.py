"""Judge arms and claims of a grid over runs, in Markdown tables. Needs the extra ``analysis``."""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats
from tabulate import tabulate

from experiments.grid import Claim, Grid, Model
from experiments.results import Repetition, Results, rates
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.bootstrap import LEVEL, Interval

FEWEST = 3  # an interval from two values tells next to nothing
RULE = f"""\
A claim holds if both intervals of the mean difference lie below its margin (0 without one). It does not hold if both
lie above. Otherwise, or with fewer than {FEWEST} seeds, it is undecided. The first interval is Student's t, 95 %, over
runs, paired by file and seed. Runs of one seed share the order of utterances, the masks and the first weights of the
heads, so the second interval is over the means of seeds. With one file the two are equal. For other utterances or
speakers, see --over utterances and --over speakers."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        outcome: ``holds``, ``does not hold``, ``undecided`` or ``not run``.
        runs: better's rate minus worse's in percentage points, over runs; None with fewer than
            three pairs.
        seeds: the same over the means of seeds; None with fewer than three seeds.
        by_run: the difference of each pair.
    """

    outcome: str
    runs: Interval | None
    seeds: Interval | None
    by_run: Mapping[Repetition, float]


def judge(results: Results, claim: Claim, subset: str) -> Verdict:
    """Judge a claim by ``RULE``.

    Raises:
        UserError: the two models were trained for different numbers of updates.
    """
    better, worse = (rates(results, model, claim.rate, subset) for model in (claim.better, claim.worse))
    by_run = {run: better[run] - worse[run] for run in better if run in worse}
    for run in by_run:
        updates = {results[run][model.arm].updates for model in (claim.better, claim.worse)}
        if len(updates) > 1:
            told = " and ".join(map(str, sorted(updates)))
            raise UserError(
                f"the claim {claim.text}: updates of seed {run.seed} differ ({told}), train both arms alike"
            )
    seeds = sorted({run.seed for run in by_run})
    means = [statistics.fmean(value for run, value in by_run.items() if run.seed == seed) for seed in seeds]
    over_runs, over_seeds = mean_interval(list(by_run.values())), mean_interval(means)
    outcome = "undecided" if by_run else "not run"
    if over_runs is not None and over_seeds is not None:
        if max(over_runs.high, over_seeds.high) < claim.margin:
            outcome = "holds"
        elif min(over_runs.low, over_seeds.low) > claim.margin:
            outcome = "does not hold"
    return Verdict(outcome, over_runs, over_seeds, by_run)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Average independent values, with the t interval; None for fewer than three."""
    if len(values) < FEWEST:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    # Not stats.t.interval: it is NaN if all values are equal.
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class Tables:
    """The tables of a grid's results; errors are counted on ``subset``."""

    results: Results
    grid: Grid
    subset: str

    def arms(self) -> str:
        """Write one row per model: mean, standard deviation and single values over runs."""
        rows = []
        for model in self.grid.models:
            wer, *others = (rates(self.results, model, kind, self.subset) for kind in ("wer", "cer", "spikes"))
            if wer:
                spreads = (_spread(other.values()) for other in others)
                rows.append((model.arm, model.exit, len(wer), _spread(wer.values()), _by_file(wer), *spreads))
        header = (
            *("arm", "layers", "runs", "WER %, mean; sd", "of each run", "CER %, mean; sd"),
            f"spike disagreement %{self._measured_on()}, mean; sd",
        )
        return _markdown(rows, header)

    def differences(self, arm: str, rate: str) -> str:
        """Write one row per model of the other arms: its rate minus the arm's.

        Subtracted is the arm's exit of as many layers or, without one, its lowest.
        """
        exits = self.grid.arms[arm].exits
        lowest = min(exits)
        others = [model for model in self.grid.models if model.arm != arm]
        pairs = [(model, Model(arm, model.exit if model.exit in exits else lowest)) for model in others]
        rows = [self._row(Claim("", *pair, rate)) for pair in pairs]
        return _markdown([row[1:4] for row in rows if row[3]], self._header()[1:4])

    def claims(self) -> str:
        """Write one row per claim, and the rule that judges it."""
        return f"{_markdown([self._row(claim) for claim in self.grid.claims], self._header())}\n\n{RULE}"

    def _header(self) -> tuple[str, ...]:
        return "claim", "compared", "points, mean [95 % over runs] [over seeds]", "of each pair", "outcome"

    def _row(self, claim: Claim) -> tuple[str, ...]:
        verdict = judge(self.results, claim, self.subset)
        seeds = len({run.seed for run in verdict.by_run})
        few = f", of {seeds} seed{'s' * (seeds > 1)}" if 0 < seeds < FEWEST else ""
        compared = claim.compared + (self._measured_on() if claim.rate == "spikes" else "")
        return claim.text, compared, points(verdict), _by_file(verdict.by_run), f"**{verdict.outcome}**{few}"

    def _measured_on(self) -> str:
        """Name the subset that spikes were compared on, if it is not ``subset``."""
        every = (result.rates.items() for arms in self.results.values() for result in arms.values())
        compared = {subset for found in every for (kind, _), by in found if kind == "spikes" for subset in by}
        return f" ({', '.join(sorted(compared))})" if compared - {self.subset} else ""


def _markdown(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def one_digit(value: float) -> str:
    """Format percentage points; zero has no sign."""
    return f"{round(value, 1) + 0.0:.1f}"


def points(verdict: Verdict) -> str:
    """Format mean, interval over runs and interval over seeds: ``0.5 [-0.3, 1.2] [-0.9, 1.9]``.

    For a grid that was run once the two intervals are equal, and the second is left out.
    """
    if verdict.runs is None:
        return ""
    over_runs = with_bounds(verdict.runs)
    if len({run.file for run in verdict.by_run}) == 1:
        return over_runs
    return f"{over_runs} {_bounds(verdict.seeds) if verdict.seeds else '[few seeds]'}"


def with_bounds(interval: Interval) -> str:
    """Format a value and its interval: ``0.5 [-0.3, 1.2]``."""
    return f"{one_digit(interval.value)} {_bounds(interval)}"


def _bounds(interval: Interval) -> str:
    return f"[{one_digit(interval.low)}, {one_digit(interval.high)}]"


def _spread(values: Iterable[float]) -> str:
    known = list(values)
    deviation = f"; {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.1f}{deviation}" if known else ""


def _by_file(values: Mapping[Repetition, float]) -> str:
    """List values with commas within a file and slashes between files."""
    files = itertools.groupby(values.items(), key=lambda item: item[0].file)
    return " / ".join(", ".join(one_digit(value) for _, value in group) for _, group in files)
