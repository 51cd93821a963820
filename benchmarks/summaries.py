"""Medians, spreads, ratios and tables of any measurements."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tabulate import tabulate


class Spread(NamedTuple):
    """Median, quartiles and extremes of measurements.

    Attributes:
        median: the median.
        lower: first quartile.
        upper: third quartile.
        least: smallest measurement.
        most: largest measurement.
        number: number of measurements.
    """

    median: float
    lower: float
    upper: float
    least: float
    most: float
    number: int

    def show(self, unit: float = 1.0, digits: int = 3) -> str:
        """Format as ``median [lower, upper]``, each divided by ``unit``."""
        median, lower, upper = (f"{value / unit:.{digits}f}" for value in self[:3])
        return f"{median} [{lower}, {upper}]"


def spread(values: Sequence[float]) -> Spread:
    """Compute median, quartiles (with linear interpolation) and extremes.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"no spread of {list(values)}")
    ordered = sorted(values)
    median, lower, upper = (_quantile(ordered, share) for share in (0.5, 0.25, 0.75))
    return Spread(median, lower, upper, ordered[0], ordered[-1], len(ordered))


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Divide pairs of measurements made in turns, so that other load slows both.

    Raises:
        ValueError: the two sequences differ in length.
    """
    return [top / bottom for top, bottom in zip(numerators, denominators, strict=True)]


def verdict(ratio: float, target: float) -> str:
    """Tell ``met``, or by how much the target is missed."""
    return "met" if ratio <= target else f"missed by {100 * (ratio / target - 1):.1f} %"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table: first column to the left, the others to the right."""
    columns = ("left", *["right"] * (len(header) - 1))
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=columns)


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
