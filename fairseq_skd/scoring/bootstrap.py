"""Bootstrap intervals over utterances of rates that are pooled over a set: errors summed first, divided last.

Utterances are drawn with replacement, as many as there are, and each draw gives a rate; the interval is made of the
percentiles of the draws (Bisani & Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance
evaluation"). Utterances of one speaker are not independent, so the intervals are, if anything, too narrow.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
_DRAWN_AT_ONCE = 4_000_000  # indices: 32 MB

Counts = Sequence[int] | npt.NDArray[np.integer]


class Interval(NamedTuple):
    """A pooled rate (or a difference of two) and where it lies; not a number where the denominator is empty."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Rate of system A minus that of system B, paired by utterance.

    Attributes:
        interval: of the difference.
        better: share of the draws in which A has the lower rate; ties count half.
    """

    interval: Interval
    better: float


def rate_interval(
    errors: Counts, totals: Counts, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 1
) -> Interval:
    """The rate sum(errors) / sum(totals) with its bootstrap interval.

    Args:
        errors: (U,) of each utterance.
        totals: (U,) what they are counted against, e.g. words of the reference.
        resamples: draws.
        level: share of the draws inside the interval.
        seed: the same seed, the same interval.

    Raises:
        ValueError: arrays of different length, or none at all.
    """
    error_counts, total_counts = _columns(errors, totals)
    drawn = [_ratio(e, t) for e, t in _draws([error_counts, total_counts], resamples, seed)]
    return _interval(_ratio(error_counts.sum(), total_counts.sum()), np.concatenate(drawn), level)


def paired_difference(
    errors_a: Counts,
    errors_b: Counts,
    totals: Counts,
    totals_b: Counts | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 1,
) -> Difference:
    """Two systems over the same utterances, compared in the same draws.

    Args:
        errors_a: (U,) errors of system A in each utterance.
        errors_b: (U,) errors of system B.
        totals: (U,) what both are counted against, or A alone.
        totals_b: (U,) what B is counted against, where that is something else.
        resamples: draws.
        level: share of the draws inside the interval.
        seed: the same seed, the same interval.

    Raises:
        ValueError: arrays of different length, or none at all.
    """
    columns = _columns(errors_a, errors_b, totals, totals if totals_b is None else totals_b)
    drawn = np.concatenate([_ratio(a, m) - _ratio(b, n) for a, b, m, n in _draws(columns, resamples, seed)])
    a, b, m, n = (column.sum() for column in columns)
    value = _ratio(a, m) - _ratio(b, n)
    known = drawn[~np.isnan(drawn)]
    better = float((known < 0).mean() + (known == 0).mean() / 2) if len(known) else float("nan")
    return Difference(_interval(value, drawn, level), better)


def _columns(*columns: Counts) -> list[npt.NDArray[np.int64]]:
    arrays = [np.asarray(column, np.int64) for column in columns]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1 or not len(arrays[0]):
        raise ValueError(f"counts of the same utterances are needed, not {[array.shape for array in arrays]}")
    return arrays


def _draws(
    columns: Sequence[npt.NDArray[np.int64]], resamples: int, seed: int
) -> Iterator[list[npt.NDArray[np.int64]]]:
    """Sums of each column over drawn utterances, some draws at a time."""
    generator = np.random.default_rng(seed)
    utterances = len(columns[0])
    at_once = max(1, _DRAWN_AT_ONCE // utterances)
    for first in range(0, resamples, at_once):
        drawn = generator.integers(utterances, size=(min(at_once, resamples - first), utterances))
        yield [column[drawn].sum(axis=1) for column in columns]


def _ratio(errors: npt.ArrayLike, totals: npt.ArrayLike) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.true_divide(errors, totals)
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _interval(value: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], level: float) -> Interval:
    known = drawn[~np.isnan(drawn)]  # a draw can consist of utterances without a reference
    if np.isnan(value) or not len(known):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
