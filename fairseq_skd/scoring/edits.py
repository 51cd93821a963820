"""Align hypothesis and reference, count substitutions, insertions and deletions, and show them.

The alignment has the fewest errors. Where several have, rapidfuzz's choice is taken: then the three
counts depend on it, but not their sum. Needs the extra ``analysis``.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from fairseq_skd.errors import shown

Aligned = list[tuple[str | None, str | None]]
_LINE = 100  # columns of a line of an alignment


class Edits(NamedTuple):
    """Errors by kind, and the length ``total`` of the reference in words or characters."""

    substituted: int = 0
    inserted: int = 0
    deleted: int = 0
    total: int = 0

    def __add__(self, other: tuple[int, ...]) -> "Edits":  # type: ignore[override]
        """Add up two counts."""
        return Edits(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def errors(self) -> int:
        """All errors: the edit distance."""
        return self.substituted + self.inserted + self.deleted

    @property
    def rate(self) -> float:
        """Errors in percent of the reference; NaN if the reference is empty."""
        return 100.0 * self.errors / self.total if self.total else float("nan")


def align(hypothesis: Sequence[str], reference: Sequence[str]) -> Aligned:
    """Align two sequences of words, or two strings of characters.

    Returns:
        pairs of reference and hypothesis; None stands for nothing.

    >>> align("THE BAT SAT ON".split(), "THE CAT SAT".split())
    [('THE', 'THE'), ('CAT', 'BAT'), ('SAT', 'SAT'), (None, 'ON')]
    """
    from rapidfuzz.distance import Levenshtein  # here, so that the command can check first that it is installed

    pairs: Aligned = []
    for step in Levenshtein.opcodes(reference, hypothesis):
        wanted: list[str | None] = [*reference[step.src_start : step.src_end]]
        found: list[str | None] = [*hypothesis[step.dest_start : step.dest_end]]
        pairs += zip(wanted or [None] * len(found), found or [None] * len(wanted), strict=True)
    return pairs


def count_edits(aligned: Aligned) -> Edits:
    """Count the errors of an alignment.

    >>> count_edits([("THE", "THE"), ("CAT", "BAT"), ("SAT", "SAT"), (None, "ON")])
    Edits(substituted=1, inserted=1, deleted=0, total=3)
    """
    inserted = sum(wanted is None for wanted, _ in aligned)
    deleted = sum(found is None for _, found in aligned)
    differing = sum(wanted != found for wanted, found in aligned)
    return Edits(differing - inserted - deleted, inserted, deleted, len(aligned) - inserted)


def show_alignment(aligned: Aligned) -> str:
    """Write an alignment as lines REF, HYP and EVAL with columns below each other.

    Stars stand for nothing. EVAL marks substitutions with S, insertions with I, deletions with D.
    Lines are broken at 100 columns. Control characters are escaped.

    >>> print(show_alignment([("THE", "THE"), ("CAT", "BAT"), (None, "ON")]))
    REF:  THE CAT **
    HYP:  THE BAT ON
    EVAL:     S   I
    """
    blocks: list[list[tuple[str, ...]]] = [[]]
    used = 0
    for wanted, found in aligned:
        words = [None if word is None else shown(word, _LINE) for word in (wanted, found)]
        width = max(display_width(word) for word in words if word is not None)
        mark = "" if wanted == found else "I" if wanted is None else "D" if found is None else "S"
        if used + width > _LINE - len("EVAL: ") and blocks[-1]:
            blocks.append([])
            used = 0
        blocks[-1].append(
            tuple(_padded(word, width) for word in (*("*" * width if w is None else w for w in words), mark))
        )
        used += width + 1
    lines = [
        f"{title:5} {' '.join(column)}".rstrip()
        for block in blocks
        for title, column in zip(
            ("REF:", "HYP:", "EVAL:"), zip(*block, strict=True) if block else ((),) * 3, strict=True
        )
    ]
    return "\n".join(lines)


def _padded(word: str, width: int) -> str:
    return word + " " * (width - display_width(word))


def display_width(text: str) -> int:
    r"""Count the columns of a text in a terminal: two for East Asian letters, none for accents.

    >>> display_width("ab"), display_width("日本"), display_width("e\u0301")
    (2, 4, 1)
    """
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
