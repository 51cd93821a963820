"""Span masks over frames and channels, drawn from a given generator.

The distributions are fairseq's (``fairseq.data.data_utils.compute_mask_indices``), its draws are not: there they come
from generators that nobody seeds or saves, raise on short utterances and narrow encoders, and two of the four kinds of
span lengths do not run on a current numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_skd.errors import UserError

SELECTIONS = ("static", "uniform", "normal", "poisson")


@dataclass(frozen=True)
class SpanMask:
    """How spans are drawn along one axis; fields as in fairseq's configuration, where ``mask_`` precedes them.

    Attributes:
        prob: expected share of the axis covered by spans if none overlapped.
        length: mean span length.
        selection: ``static`` (always ``length``), ``uniform`` on [other, 2 length], ``normal`` with standard deviation
            ``other``, ``poisson``.
        other: see selection.
        no_overlap: spans keep ``min_space`` apart.
        min_space: see no_overlap.
        min_spans: at least so many spans.
        same_count: every row gets the same number of masked positions (the least of them).
        dropout: share of masked positions that are unmasked again.
    """

    prob: float
    length: int
    selection: str = "static"
    other: float = 0.0
    no_overlap: bool = False
    min_space: int = 1
    min_spans: int = 0
    same_count: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise UserError(f"mask selection {self.selection!r} is unknown: choose one of {', '.join(SELECTIONS)}")
        if self.length < 1:
            raise UserError(f"a mask length of {self.length} is not positive")
        if self.other < 0 or (self.selection == "uniform" and self.other > 2 * self.length):
            raise UserError(
                f"mask other={self.other} is out of range for selection {self.selection} and length {self.length}: "
                f"it is at least 0, and at most twice the length if the selection is uniform"
            )

    def draw(self, sizes: Sequence[int], width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a mask.

        Args:
            sizes: real positions of each row; positions beyond are never masked.
            width: length of the axis, padding included.
            rng: where every random number comes from.

        Returns:
            (rows, width) bool, true where masked; each row keeps at least one real position.
        """
        rows = [self._draw_row(size, rng) for size in sizes]
        if self.same_count and rows:
            fewest = min(len(row) for row in rows)
            rows = [row if len(row) == fewest else rng.choice(row, fewest, replace=False) for row in rows]
        mask = np.zeros((len(rows), width), dtype=bool)
        for i, row in enumerate(rows):
            if self.dropout > 0:
                row = rng.choice(row, len(row) - int(np.rint(len(row) * self.dropout)), replace=False)
            mask[i, row] = True
        return mask

    def _draw_row(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Masked positions of a row of ``size`` real ones, fewer than ``size`` of them."""
        spans = max(self.min_spans, int(self.prob * size / self.length + rng.random()))
        if spans == 0 or size < 2:
            return np.empty(0, dtype=np.int64)
        lengths = self._span_lengths(spans, rng)
        starts, lengths = (_apart if self.no_overlap else _anywhere)(size, lengths, self.min_space, rng)
        masked = np.zeros(size, dtype=bool)
        for start, length in zip(starts, lengths, strict=True):
            masked[start : start + length] = True
        if masked.all():
            masked[rng.integers(size)] = False
        return np.flatnonzero(masked)

    def _span_lengths(self, spans: int, rng: np.random.Generator) -> np.ndarray:
        lengths: Any
        if self.selection == "static":
            lengths = np.full(spans, self.length)
        elif self.selection == "uniform":
            lengths = rng.integers(int(self.other), 2 * self.length + 1, size=spans)
        elif self.selection == "normal":
            lengths = np.maximum(1, np.rint(rng.normal(self.length, self.other, size=spans)))
        else:
            lengths = rng.poisson(self.length, size=spans)
        lengths = lengths.astype(np.int64)
        return lengths if lengths.any() else np.array([self.length])


def _anywhere(
    size: int, lengths: np.ndarray, min_space: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct starts; spans may overlap, and the last ones may be cut by the end of the row."""
    spans = min(len(lengths), size)
    candidates = max(size - int(lengths.min()), spans)
    return rng.choice(candidates, spans, replace=False), lengths[:spans]


def _apart(size: int, lengths: np.ndarray, min_space: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Spans that do not touch: longest first, each into a gap chosen by its room; those without room are left out."""
    gaps = [(0, size)]
    placed: list[tuple[int, int]] = []
    for length in sorted((int(length) for length in lengths if length > 0), reverse=True):
        room = np.array([max(0, end - start - length + 1) for start, end in gaps], dtype=np.float64)
        if room.sum() == 0:
            continue
        start, end = gaps.pop(rng.choice(len(gaps), p=room / room.sum()))
        begin = int(rng.integers(start, end - length + 1))
        placed.append((begin, length))
        gaps += [(start, begin - min_space), (begin + length + min_space, end)]
        gaps = [gap for gap in gaps if gap[1] > gap[0]]
        if not gaps:
            break
    starts, kept = zip(*placed, strict=True) if placed else ((), ())
    return np.array(starts, dtype=np.int64), np.array(kept, dtype=np.int64)
