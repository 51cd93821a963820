"""The units that a CTC model outputs, and how fairseq's label files write a transcript in them; here: letters."""

from collections.abc import Sequence
from operator import eq
from typing import Protocol

WORD_END = "|"
WORD_MARK = "\u2581"  # SentencePiece's: the unit begins a word
# fairseq's names for the ways that units become words.
POST_PROCESSES = ("letter", "none", "sentencepiece", "wordpiece", "silence", "_EOW", "subword_nmt", "@@", "@@ ")

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
    if ALPHABET.issuperset(text):
        return []
    return [character for character in dict.fromkeys(text) if character not in ALPHABET]


def frames_needed(units: Sequence[str]) -> int:
    """The fewest frames on which CTC can place ``units``: one each, and a blank between two equal neighbours."""
    return len(units) + sum(map(eq, units, units[1:]))


class Units(Protocol):
    """A set of units.

    Attributes:
        name: the suffix of label files and dictionary, ``ltr`` or ``spm``.
        noun: what the units are called.
    """

    name: str
    noun: str

    def split(self, text: str) -> list[str]:
        """The units of a transcript."""

    def count(self, text: str) -> int:
        """How many units a transcript has, as the summary counts them."""

    def missing(self, text: str) -> str:
        """What of a transcript has no unit, in words; empty if all has."""

    def files(self) -> dict[str, bytes]:
        """The files that stand beside the manifests: the dictionary, and what is needed to make units of new text."""


class Letters:
    """The letters of fairseq's dictionary, ``|`` after each word."""

    name = "ltr"
    noun = "letters"

    def split(self, text: str) -> list[str]:
        """See :func:`letters`."""
        return letters(text)

    def count(self, text: str) -> int:
        """The letters; the ends of words do not count."""
        return len(text) - text.count(" ")

    def missing(self, text: str) -> str:
        """Nothing: what is no letter is a fault of the transcript, whatever the units."""
        return ""

    def files(self) -> dict[str, bytes]:
        """``dict.ltr.txt``."""
        return {"dict.ltr.txt": letter_dictionary().encode()}


LETTERS = Letters()
