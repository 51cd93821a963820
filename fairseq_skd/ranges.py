"""Ranges of numeric settings, declared in tables: section -> key -> range."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq_skd.errors import UserError


@dataclass(frozen=True)
class Range:
    """An interval of finite numbers.

    Attributes:
        low: the least number.
        high: the greatest number.
        above: whether ``low`` itself is excluded.
        below: whether ``high`` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is a number of the interval."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        parts = []
        if math.isfinite(self.low):
            parts.append(f"{'above' if self.above else 'at least'} {self.low:,}")
        if math.isfinite(self.high):
            parts.append(f"{'below' if self.below else 'at most'} {self.high:,}")
        else:
            parts.append("finite")
        return " and ".join(parts)


PROBABILITY = Range(0, 1)
DROPOUT = Range(0, 1, below=True)  # at 1 nothing is left to train
NON_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
COUNT = Range(1)
FINITE = Range()


def check_ranges(section: str, values: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Check the numbers of one section. Absent and null keys are skipped; a list is checked number by number.

    Args:
        section: name of the section, such as ``model``.
        values: key -> value.
        ranges: key -> range.

    Raises:
        UserError: a value is out of range, or a list is empty.
    """
    for key, allowed in ranges.items():
        if key not in values or values[key] is None:
            continue
        value = values[key]
        numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not numbers:
            raise UserError(f"{section}.{key}=[] is empty: give one number or more")
        if not all(allowed.holds(number) for number in numbers):
            raise UserError(f"{section}.{key}={value} is out of range: it has to be {allowed}")
