"""The letters that a CTC model outputs, and how fairseq's ``.ltr`` files write a transcript in them."""

from itertools import pairwise

WORD_END = "|"

LETTER_COUNTS: tuple[tuple[str, int], ...] = (
    (WORD_END, 94802),
    ("E", 51860),
    ("T", 38431),
    ("A", 33152),
    ("O", 31495),
    ("N", 28855),
    ("I", 28794),
    ("H", 27187),
    ("S", 26071),
    ("R", 23546),
    ("D", 18289),
    ("L", 16308),
    ("U", 12400),
    ("M", 10685),
    ("W", 10317),
    ("C", 9844),
    ("F", 9062),
    ("G", 8924),
    ("Y", 8226),
    ("P", 6890),
    ("B", 6339),
    ("V", 3936),
    ("K", 3456),
    ("'", 1023),
    ("X", 636),
    ("J", 598),
    ("Q", 437),
    ("Z", 213),
)
"""Symbols and counts of fairseq's LibriSpeech letter dictionary. A model's outputs are numbered by the order of the
symbols, so it is kept; the counts have to be there for fairseq to read the file, and CTC uses them nowhere."""

ALPHABET = frozenset(symbol for symbol, _ in LETTER_COUNTS if symbol != WORD_END) | {" "}


def letter_dictionary() -> str:
    """The text of ``dict.ltr.txt``: a symbol and its count on each line."""
    return "".join(f"{symbol} {count}\n" for symbol, count in LETTER_COUNTS)


def letters(text: str) -> list[str]:
    """The units of a transcript: its letters, and ``|`` after each word.

    >>> " ".join(letters("GO ON"))
    'G O | O N |'
    """
    return [*text.replace(" ", WORD_END), WORD_END]


def foreign_characters(text: str) -> list[str]:
    """The characters of ``text`` that the letter dictionary lacks, each once, in order of appearance."""
    return [character for character in dict.fromkeys(text) if character not in ALPHABET]


def frames_needed(units: list[str]) -> int:
    """The fewest frames on which CTC can place ``units``: one each, and a blank between two equal neighbours."""
    return len(units) + sum(left == right for left, right in pairwise(units))
