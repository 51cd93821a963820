"""Units that a CTC model outputs, and how fairseq's label files spell a transcript in them."""

import unicodedata
from collections.abc import Sequence
from operator import eq
from typing import Protocol

WORD_END = "|"
WORD_MARK = "\u2581"  # a SentencePiece unit with this mark begins a word
# fairseq's names for the ways to join units into words.
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
"""Symbols and counts of fairseq's LibriSpeech letter dictionary. The order of the symbols numbers
the outputs of a model, so it must not change. fairseq's file format needs the counts; CTC does not
use them."""

ALPHABET = frozenset(symbol for symbol, _ in LETTER_COUNTS if symbol != WORD_END) | {" "}


def letter_dictionary() -> str:
    """Return the text of ``dict.ltr.txt``: one symbol and its count per line."""
    return "".join(f"{symbol} {count}\n" for symbol, count in LETTER_COUNTS)


def letters(text: str) -> list[str]:
    """Spell a transcript in letters, with ``|`` after each word.

    >>> " ".join(letters("GO ON"))
    'G O | O N |'
    """
    return [*text.replace(" ", WORD_END), WORD_END]


def foreign_characters(text: str) -> list[str]:
    """List the characters of ``text`` that the letter dictionary lacks, each once, in order."""
    if ALPHABET.issuperset(text):
        return []
    return [character for character in dict.fromkeys(text) if character not in ALPHABET]


def frames_needed(units: Sequence[object]) -> int:
    """Count the frames that CTC needs: one per unit, and a blank between two equal neighbours.

    >>> frames_needed(letters("SEE"))
    5
    """
    return len(units) + sum(map(eq, units, units[1:]))


def is_symbol(symbol: str) -> bool:
    r"""Whether a text can be a symbol: not empty, without space, control character or surrogate.

    >>> is_symbol("\u200c"), is_symbol("a b"), is_symbol("\x1b")  # U+200C joins Persian letters
    (True, False, False)
    """
    return symbol.split() == [symbol] and not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in symbol)


class Units(Protocol):
    """A set of units.

    Attributes:
        name: suffix of label files and dictionary, ``ltr`` or ``spm``.
        noun: heading of the units in the summary, such as ``letters``.
    """

    name: str
    noun: str

    def split(self, text: str) -> list[str]:
        """Spell a transcript in units."""

    def count(self, text: str) -> int:
        """Count the units of a transcript, for the summary."""

    def missing(self, text: str) -> str:
        """Say what part of a transcript the units cannot spell; empty if they spell all of it."""

    def files(self) -> dict[str, bytes]:
        """Return the files to write beside the manifests, by name: dictionary and model."""


class Letters:
    """Letters of fairseq's dictionary, with ``|`` after each word."""

    name = "ltr"
    noun = "letters"

    def split(self, text: str) -> list[str]:
        """Spell a transcript in letters, see :func:`letters`."""
        return letters(text)

    def count(self, text: str) -> int:
        """Count the letters, without the word ends."""
        return len(text) - text.count(" ")

    def missing(self, text: str) -> str:
        """Return nothing: ``label_faults`` reports characters outside the alphabet."""
        return ""

    def files(self) -> dict[str, bytes]:
        """Return ``dict.ltr.txt``."""
        return {"dict.ltr.txt": letter_dictionary().encode()}


LETTERS = Letters()


class NoUnits:
    """Stands for the units of audio without transcripts: nothing is spelt, and no file written."""

    name = ""
    noun = ""

    def split(self, text: str) -> list[str]:
        """Return nothing."""
        return []

    def count(self, text: str) -> int:
        """Return 0."""
        return 0

    def missing(self, text: str) -> str:
        """Return nothing."""
        return ""

    def files(self) -> dict[str, bytes]:
        """Return nothing."""
        return {}


NO_UNITS = NoUnits()
