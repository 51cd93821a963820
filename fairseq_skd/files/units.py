"""Units that a CTC model outputs, and how fairseq's label files spell a transcript in them."""

import unicodedata
from collections.abc import Iterable, Sequence
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


def letter_dictionary() -> str:
    """Return the text of ``dict.ltr.txt``: one symbol and its count per line."""
    return "".join(f"{symbol} {count}\n" for symbol, count in LETTER_COUNTS)


def letters(text: str) -> list[str]:
    """Spell a transcript in letters, with ``|`` after each word.

    >>> " ".join(letters("GO ON"))
    'G O | O N |'
    """
    return [*text.replace(" ", WORD_END), WORD_END]


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
        name: suffix of label files and dictionary: ``ltr``, ``spm`` or ``phn``.
        noun: heading of the units in the summary, such as ``letters``.
        notes: what the summary says about the units.
        lacking: what to do about a letter that the units lack.
        spells: ``--normalize digits`` knows the language.
    """

    name: str
    noun: str
    notes: Sequence[str]
    lacking: str
    spells: bool

    def split(self, text: str) -> list[str]:
        """Spell a transcript in units."""

    def count(self, text: str) -> int:
        """Count the units of a transcript, for the summary."""

    def outside(self, text: str) -> list[str]:
        """List the symbols of a transcript that the units lack, each as often as it occurs."""

    def missing(self, text: str) -> str:
        """Say why a transcript without symbols outside cannot be spelt; empty if it can."""

    def files(self) -> dict[str, bytes]:
        """Return the files to write beside the manifests, by name: dictionary and model."""


class Letters:
    """Letters of a fairseq dictionary, with ``|`` after each word.

    >>> LETTERS.outside("GO ON, 2")
    [',', '2']

    Args:
        symbols: the dictionary's symbols.
        dictionary: content of ``dict.ltr.txt``.
        notes: what the summary says about the letters.
        lacking: what to do about a letter that the dictionary lacks.
    """

    name = "ltr"
    noun = "letters"
    spells = True

    def __init__(self, symbols: Iterable[str], dictionary: bytes, notes: Sequence[str] = (), lacking: str = "") -> None:
        self.alphabet = frozenset(symbols) - {WORD_END} | {" "}
        self.dictionary = dictionary
        self.notes, self.lacking = notes, lacking

    def split(self, text: str) -> list[str]:
        """Spell a transcript in letters, see :func:`letters`."""
        return letters(text)

    def count(self, text: str) -> int:
        """Count the letters, without the word ends."""
        return len(text) - text.count(" ")

    def outside(self, text: str) -> list[str]:
        """List the characters that the dictionary lacks, each as often as it occurs."""
        if self.alphabet.issuperset(text):
            return []
        return [character for character in text if character not in self.alphabet]

    def missing(self, text: str) -> str:
        """Return nothing: letters spell each text of their alphabet."""
        return ""

    def files(self) -> dict[str, bytes]:
        """Return ``dict.ltr.txt``."""
        return {"dict.ltr.txt": self.dictionary}


class Symbols:
    """Symbols with single spaces between, such as phones; no unit ends a word.

    Args:
        symbols: the dictionary's symbols.
        dictionary: content of ``dict.phn.txt``.
        notes: what the summary says about the symbols.
        lacking: what to do about a symbol that the dictionary lacks.
    """

    name = "phn"
    noun = "symbols"
    spells = False

    def __init__(self, symbols: Iterable[str], dictionary: bytes, notes: Sequence[str] = (), lacking: str = "") -> None:
        self.alphabet = frozenset(symbols)
        self.dictionary = dictionary
        self.notes, self.lacking = notes, lacking

    def split(self, text: str) -> list[str]:
        """Cut a transcript at its spaces."""
        return text.split(" ")

    def count(self, text: str) -> int:
        """Count the symbols."""
        return len(text.split(" "))

    def outside(self, text: str) -> list[str]:
        """List the symbols that the dictionary lacks, each as often as it occurs."""
        return [symbol for symbol in text.split(" ") if symbol and symbol not in self.alphabet]

    def missing(self, text: str) -> str:
        """Return nothing: symbols spell each text of their dictionary."""
        return ""

    def files(self) -> dict[str, bytes]:
        """Return ``dict.phn.txt``."""
        return {"dict.phn.txt": self.dictionary}


LETTERS = Letters(
    (symbol for symbol, _ in LETTER_COUNTS),
    letter_dictionary().encode(),
    lacking="English has the letters A-Z: correct the text, or name its language, such as --language de",
)
"""English letters, in the order of fairseq's LibriSpeech dictionary."""


class NoUnits:
    """Spells nothing: audio without transcripts, or transcripts that are refused.

    Args:
        alphabet: units that tell which symbols are outside; None: no symbol is.
    """

    name = ""
    noun = ""
    notes: Sequence[str] = ()
    lacking = ""
    spells = True

    def __init__(self, alphabet: Units | None = None) -> None:
        self._alphabet = alphabet
        if alphabet is not None:
            self.lacking, self.spells = alphabet.lacking, alphabet.spells

    def split(self, text: str) -> list[str]:
        """Return nothing."""
        return []

    def count(self, text: str) -> int:
        """Return 0."""
        return 0

    def outside(self, text: str) -> list[str]:
        """List the symbols that the alphabet lacks, each as often as it occurs."""
        return self._alphabet.outside(text) if self._alphabet else []

    def missing(self, text: str) -> str:
        """Return nothing."""
        return ""

    def files(self) -> dict[str, bytes]:
        """Return nothing."""
        return {}


NO_UNITS = NoUnits()
"""The units of audio without transcripts."""
