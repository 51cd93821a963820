"""Bootstrap intervals of pooled error rates, sum(errors) / sum(totals), and of quantiles.

Utterances of one speaker are not independent. If speakers are known, each draw takes whole speakers
with replacement, as many as there are; else it takes utterances. Each draw gives a rate, and the
percentiles of these rates are the interval (Bisani & Ney 2004, "Bootstrap estimates for confidence
intervals in ASR performance evaluation"). BCa intervals would be NaN for two systems with the same
errors. Needs the extra ``analysis``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fairseq_skd.files.progress import progress

RESAMPLES = 10_000
LEVEL = 0.95
_DRAWN_AT_ONCE = 4_000_000  # indices: 32 MB

Counts = Sequence[int] | npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A pooled rate, or a difference of two, with its interval; NaN if there is no reference."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Rate of system A minus the rate of system B, paired by utterance.

    Attributes:
        interval: the difference and its interval.
        better: share of draws in which A has the lower rate; ties count half.
    """

    interval: Interval
    better: float


def rate_interval(
    errors: Counts,
    totals: Counts,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 1,
) -> Interval:
    """Compute the rate sum(errors) / sum(totals) and its bootstrap interval.

    Args:
        errors: (U,) errors of each utterance.
        totals: (U,) reference length of each utterance, e.g. in words.
        groups: (U,) speaker of each utterance; None: unknown. See :func:`resampling`.
        resamples: number of draws.
        level: share of draws inside the interval.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: the arguments differ in length, or are empty.

    >>> rate_interval([1, 0, 4, 0], [4, 4, 4, 4], ["ann", "ann", "bob", "bob"])
    Interval(value=0.3125, low=0.125, high=0.5)
    """
    columns = _columns(groups, errors, totals)
    return _interval(_rate(*columns.sum(axis=1)), _rate(*_drawn_sums(columns, resamples, seed)), level)


def paired_difference(
    errors_a: Counts,
    errors_b: Counts,
    totals: Counts,
    totals_b: Counts | None = None,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 1,
) -> Difference:
    """Compare two systems on the same utterances; each draw takes the same utterances for both.

    Args:
        errors_a: (U,) errors of system A in each utterance.
        errors_b: (U,) errors of system B in each utterance.
        totals: (U,) reference lengths for A, and for B unless ``totals_b`` is given.
        totals_b: (U,) reference lengths for B.
        groups: (U,) speaker of each utterance; None: unknown. See :func:`resampling`.
        resamples: number of draws.
        level: share of draws inside the interval.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: the arguments differ in length, or are empty.
    """
    columns = _columns(groups, errors_a, errors_b, totals, totals if totals_b is None else totals_b)

    def difference(sums: Floats) -> Floats:
        return _rate(sums[0], sums[2]) - _rate(sums[1], sums[3])

    drawn = difference(_drawn_sums(columns, resamples, seed))
    known = drawn[~np.isnan(drawn)]
    better = float((known < 0).mean() + (known == 0).mean() / 2) if len(known) else float("nan")
    return Difference(_interval(difference(columns.sum(axis=1)), drawn, level), better)


def quantile_interval(
    values: Sequence[npt.ArrayLike], share: float, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 1
) -> Interval:
    """Compute a quantile of all values together, and its bootstrap interval over utterances.

    Args:
        values: one array per utterance, none of them empty.
        share: 0.5 for the median.
        resamples: number of draws.
        level: share of draws inside the interval.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: there is no utterance, or an utterance has no value.

    >>> quantile_interval([[1.0, 3.0], [5.0]], share=0.5)
    Interval(value=3.0, low=2.0, high=5.0)
    """
    sizes = [np.size(one) for one in values]
    if not sizes or not all(sizes):
        raise ValueError("give at least one utterance, and at least one value per utterance")
    pooled = np.concatenate([np.asarray(one, np.float64) for one in values])
    order = pooled.argsort()
    ordered, owner = pooled[order], np.repeat(np.arange(len(sizes)), sizes)[order]  # (N,)

    def quantiles(counts: npt.NDArray[np.int64]) -> Floats:
        """Compute one quantile per draw, (D,), from how often it has each utterance, (D, U)."""
        ends = counts[:, owner].cumsum(axis=1)  # (D, N): values up to this one
        place = share * (ends[:, -1] - 1)
        below, above = ((ends <= edge[:, None]).sum(axis=1) for edge in (np.floor(place), np.ceil(place)))
        return ordered[below] + place % 1 * (ordered[above] - ordered[below])

    units = len(sizes)
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    parts = np.array_split(counts, 1 + resamples * len(pooled) // _DRAWN_AT_ONCE)
    drawn = np.concatenate([quantiles(part) for part in parts])
    return _interval(quantiles(np.ones((1, units), np.int64))[0], drawn, level)


def resampling(groups: Sequence[str] | None) -> dict[str, Any]:
    """Say what is drawn, for result files: speakers if at least two are known, else utterances.

    >>> resampling(["ann", "ann", "bob"])
    {'resampled': 'speakers', 'speakers': 2}
    >>> resampling(["ann", "ann"])
    {'resampled': 'utterances', 'speakers': 1}
    >>> resampling(None)
    {'resampled': 'utterances', 'speakers': None}
    """
    speakers = None if groups is None else len(set(groups))
    return {"resampled": "speakers" if speakers and speakers > 1 else "utterances", "speakers": speakers}


def _columns(groups: Sequence[str] | None, *counts: Counts) -> Floats:
    """Make (columns, units) counts; a unit, which is drawn, is a speaker or an utterance."""
    columns = [np.asarray(column, np.float64) for column in counts]
    lengths = {column.shape for column in columns} | ({(len(groups),)} if groups is not None else set())
    if len(lengths) != 1 or columns[0].ndim != 1 or not len(columns[0]):
        raise ValueError(f"give counts of the same utterances, not of shapes {sorted(lengths)}")
    if resampling(groups)["resampled"] == "utterances":
        return np.stack(columns)
    _, speaker = np.unique(np.asarray(groups), return_inverse=True)
    return np.stack([np.bincount(speaker, column) for column in columns])


def _drawn_sums(columns: Floats, resamples: int, seed: int) -> Floats:
    """Sum over the units of each draw: (columns, resamples), or (columns, 1) if there is one unit.

    scipy gets sums, not rates: it gives up if the rate of one draw is NaN.
    """
    from scipy.stats import bootstrap  # imported here, so that commands can check first that it is installed

    units = columns.shape[1]
    if units < 2:
        return columns
    with progress("drawing bootstrap samples", "sample", resamples) as step:

        def sums(*drawn: Floats, axis: int) -> Floats:
            step(drawn[0].size // units)
            return np.stack([column.sum(axis) for column in drawn])

        found = bootstrap(
            columns,
            sums,
            paired=True,
            n_resamples=resamples,
            batch=max(1, _DRAWN_AT_ONCE // units),
            method="percentile",
            rng=seed,
        )
    return np.asarray(found.bootstrap_distribution, np.float64)


def _rate(errors: npt.ArrayLike, totals: npt.ArrayLike) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.true_divide(errors, totals)
    return np.where(np.isfinite(rate), rate, np.nan)


def _interval(value: Floats, drawn: Floats, level: float) -> Interval:
    known = drawn[~np.isnan(drawn)]  # in some draws, all references may be empty
    if np.isnan(value) or not len(known):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
