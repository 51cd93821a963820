"""Span masks over frames and channels, drawn from a given generator.

The distributions are those of ``fairseq.data.data_utils.compute_mask_indices``. fairseq's function
itself is not used: it draws from generators that nobody seeds or saves, it fails on short
utterances and narrow encoders, and two of its four length distributions fail with a current numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_skd.errors import UserError

SELECTIONS = ("static", "uniform", "normal", "poisson")


@dataclass(frozen=True)
class SpanMask:
    """Distribution of spans along one axis. fairseq's keys have the same names after ``mask_``.

    Attributes:
        prob: expected share of the axis covered by spans if none overlapped.
        length: mean span length.
        selection: distribution of span lengths: ``static`` (always ``length``), ``uniform`` on
            [other, 2 length], ``normal`` with standard deviation ``other``, or ``poisson``.
        other: see selection.
        no_overlap: whether spans keep ``min_space`` apart.
        min_space: see no_overlap.
        min_spans: lowest number of spans.
        same_count: whether every row gets the same number of masked positions, the minimum over
            rows.
        dropout: share of masked positions to unmask again.
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
            raise UserError(f"mask length={self.length} must be at least 1")
        if self.other < 0 or (self.selection == "uniform" and self.other > 2 * self.length):
            raise UserError(
                f"mask other={self.other} is out of range for selection {self.selection} and length {self.length}: "
                f"it must be at least 0, and for uniform at most twice the length"
            )

    def draw(self, sizes: Sequence[int], width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a mask.

        Args:
            sizes: number of real positions per row; padding is never masked.
            width: length of the axis, padding included.
            rng: source of all random numbers.

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
        """Draw masked positions for a row of ``size`` real positions, fewer than ``size``."""
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
    """Place spans at distinct starts; they may overlap, and the end of the row may cut them."""
    spans = min(len(lengths), size)
    candidates = max(size - int(lengths.min()), spans)
    return rng.choice(candidates, spans, replace=False), lengths[:spans]


def _apart(size: int, lengths: np.ndarray, min_space: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Place spans ``min_space`` apart, the longest first.

    Each goes into a gap drawn in proportion to its room. Spans without room are omitted.
    """
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
