"""Phrase boosting: prefer the words and phrases of a file (hotwords, contextual biasing).

A phrase that a hypothesis holds adds its bonus to the score: ``scale * weight * characters``, in
natural-log units, spaces not counted. Each occurrence counts, also one inside a longer phrase. An
:class:`~fairseq_skd.search.automaton.Automaton` follows the phrases in the text.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.disk import numbered_lines
from fairseq_skd.files.units import WORD_END, WORD_MARK
from fairseq_skd.search.automaton import Automaton, Text
from fairseq_skd.search.lexicon import Lexicon, check_homographs

_MARKS = {"letter": WORD_END, "sentencepiece": WORD_MARK, "wordpiece": "_"}  # between the words of a text
_MOST = 1000.0  # a weight of more would only cost precision


def check_scale(option: str, scale: float) -> None:
    """Check the factor of all weights; ``option`` names it in the message.

    Raises:
        UserError: it is not a number from 0 to 1000.
    """
    if not 0 <= scale <= _MOST:
        raise UserError(f"{option}{scale} is out of range: give a number from 0 to {_MOST:g}")


@dataclass(frozen=True)
class Phrases:
    """Phrases that fit a search.

    Attributes:
        path: the file.
        weights: weight of each phrase; its words have one space between them.
        scale: factor of all weights.
        process: how units become words, one of fairseq's ``post_process`` names.
        added: spellings of the words that the lexicon of the search lacks.
    """

    path: Path
    weights: dict[str, float]
    scale: float
    process: str
    added: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def with_words(self, lexicon: Lexicon) -> Lexicon:
        """Return the lexicon with the words that it lacks.

        Raises:
            UserError: more words share one spelling than the search keeps.
        """
        words = {**lexicon.words, **{word: [spelling] for word, spelling in self.added.items()}}
        check_homographs(lexicon.path, words)
        return replace(lexicon, words=words)

    def summary(self) -> dict[str, Any]:
        """Describe them for ``summary.json``."""
        return {"phrases": str(self.path), "phrase_count": len(self.weights), "phraseweight": self.scale}

    def over_words(self, words: Sequence[str]) -> Automaton:
        """Build the automaton of a search over the words of a lexicon, by index."""
        bonuses = {tuple(phrase.split(" ")): self.scale * weight for phrase, weight in self.weights.items()}
        return Automaton(bonuses, [(word,) for word in words], None, size=len)

    def over_units(self, units: Sequence[str]) -> Automaton:
        """Build the automaton of a search over units, by index."""
        texts = [_text_of(unit, self.process) for unit in units]
        mark = _mark(units, self.process)
        bonuses = {_spell(phrase, self.process, mark): self.scale * w for phrase, w in self.weights.items()}
        return Automaton(bonuses, texts, mark)


def read_phrases(
    path: Path, scale: float, symbols: Sequence[str], specials: int, process: str, lexicon: Lexicon | None
) -> Phrases:
    """Read lines ``PHRASE`` or ``PHRASE<TAB>WEIGHT``; a line without weight has weight 1.

    Args:
        path: the file, UTF-8. Text is brought to Unicode's form NFC.
        scale: factor of all weights.
        symbols: symbols of the dictionary, by index.
        specials: number of fairseq's own symbols, which come first and spell nothing.
        process: how units become words, one of fairseq's ``post_process`` names.
        lexicon: of the search; None: it has none.

    Raises:
        UserError: the file cannot be read or holds no phrase, a weight is not a number from -1000
            to 1000, a phrase stands twice with different weights, or the search cannot output it.
    """
    if not path.is_file():
        raise UserError(f"phrases {path} does not exist: check the path")
    if process not in (*_MARKS, "none"):
        raise UserError(
            f"phrases {path} cannot be used with post_process={process}: they need one of {', '.join(_MARKS)}, none"
        )
    units = symbols[specials:]
    checked = _Spelling(units, process, lexicon)
    weights: dict[str, float] = {}
    lines: dict[str, int] = {}
    added: dict[str, tuple[int, ...]] = {}
    for number, line in numbered_lines(path):
        where = f"phrases {path} line {number}"
        written, tab, value = line.partition("\t")
        phrase = " ".join(unicodedata.normalize("NFC", written).split())
        weight = _weight(value, where) if tab else 1.0
        if weights.setdefault(phrase, weight) != weight:
            raise UserError(
                f"{where}: {shown(phrase)} has weight {weight:g}, but {weights[phrase]:g} in line {lines[phrase]}: "
                f"delete one of the lines"
            )
        lines.setdefault(phrase, number)
        for word in checked.missing(phrase, where):
            if scale * weight > 0:
                added[word] = tuple(specials + units.index(unit) for unit in _letters(word, units))
    if not weights:
        raise UserError(f"phrases {path} holds no phrase: write one per line, optionally with a tab and a weight")
    return Phrases(path, weights, scale, process, added)


class _Spelling:
    """What a search can output."""

    def __init__(self, units: Sequence[str], process: str, lexicon: Lexicon | None) -> None:
        self.units, self.process, self.lexicon = set(units), process, lexicon
        self.longest = max(map(len, units), default=1)
        self.mark = _mark(units, process)

    def missing(self, phrase: str, where: str) -> list[str]:
        """List the words to add to the lexicon.

        Raises:
            UserError: the search cannot output the phrase.
        """
        if self.lexicon is None:
            self._check(phrase, phrase, where, "write it in the symbols of the training labels")
            return []
        words = [word for word in phrase.split(" ") if word not in self.lexicon.words]
        for word in words:
            about = f"add a line '{word}<TAB>unit unit ...' to the lexicon {self.lexicon.path}"
            if self.process != "letter":
                raise UserError(f"{where}: {shown(word)} is not in the lexicon, and the units are not letters: {about}")
            self._check(word, phrase, where, about)
        return words

    def _check(self, text: str, phrase: str, where: str, about: str) -> None:
        if self._fits(text):
            return
        for case, changed in (("upper", text.upper()), ("lower", text.lower())):
            if changed != text and self._fits(changed):
                about = f"write it in {case} case"
        known = {sign for unit in self.units for sign in _text_of(unit, self.process)} - {self.mark}
        written = text.split(" ") if self.process == "none" else text.replace(" ", "")
        foreign = ", ".join(repr(sign) for sign in dict.fromkeys(written) if sign not in known)
        reason = f"symbols that no word of this model has ({foreign})" if foreign else "a word that no units spell"
        raise UserError(f"{where}: {shown(phrase)!r} has {shown(reason)}: {about}")

    def _fits(self, text: str) -> bool:
        """Whether units of the dictionary spell a text."""
        if self.process == "none":
            return self.units.issuperset(text.split(" "))
        if self.mark is not None and self.mark in text:
            return False
        marked = "".join(_spell(text, self.process, self.mark))
        for begin in (0, 1) if self.mark is not None else (0,):  # the first mark may be missing
            reached = {begin}
            for start in range(begin, len(marked)):
                if start in reached:
                    ends = range(start + 1, min(start + self.longest, len(marked)) + 1)
                    reached.update(end for end in ends if marked[start:end] in self.units)
            # the last mark belongs to the next word
            if len(marked) in reached or (self.mark is not None and len(marked) - 1 in reached):
                return True
        return False


def _weight(value: str, where: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= _MOST:
        raise UserError(
            f"{where}: the weight {shown(value)!r} is not a number from -{_MOST:g} to {_MOST:g}: write "
            f"PHRASE<TAB>WEIGHT"
        )
    return weight


def _mark(units: Sequence[str], process: str) -> str | None:
    """Return the character between words; None if the units have none: phrases match anywhere."""
    mark = _MARKS.get(process)
    return mark if mark is not None and any(mark in unit for unit in units) else None


def _text_of(unit: str, process: str) -> Text:
    """Return the symbols that a unit adds to the text: its characters, or the unit itself."""
    whole = process not in _MARKS or (unit.startswith("<") and unit.endswith(">"))
    return (unit,) if whole else tuple(unit)


def _spell(phrase: str, process: str, mark: str | None) -> Text:
    """Spell a phrase as it stands in a text; a phrase of words begins and ends in the mark."""
    if process not in _MARKS:
        return tuple(phrase.split(" "))
    if mark is None:
        return tuple(phrase.replace(" ", ""))
    return tuple(f"{mark}{phrase.replace(' ', mark)}{mark}")


def _letters(word: str, units: Sequence[str]) -> list[str]:
    """Spell a word of a lexicon in letters."""
    return [*word, WORD_END] if WORD_END in units else [*word]
