"""Error rates over a whole set: errors and reference lengths are summed first, divided last."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import editdistance


class ErrorCount(NamedTuple):
    """Edit errors against a reference of ``total`` symbols (words, characters or units)."""

    errors: int
    total: int

    def __add__(self, other: tuple[int, ...]) -> "ErrorCount":  # type: ignore[override]
        """Pool two counts."""
        errors, total = other
        return ErrorCount(self.errors + errors, self.total + total)

    @property
    def rate(self) -> float:
        """Errors in percent of the reference; not a number when the reference is empty."""
        return 100.0 * self.errors / self.total if self.total else float("nan")


def count_errors(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> ErrorCount:
    """Levenshtein distance between two symbol sequences, with the reference's length."""
    return ErrorCount(editdistance.eval(hypothesis, reference), len(reference))
