"""Phrase boosting: prefer the words and phrases of a file (hotwords, contextual biasing).

A phrase that a hypothesis holds adds its bonus to the score: ``scale * weight * characters``, in
natural-log units, spaces not counted. Each occurrence counts, also one inside a longer phrase. A
prefix tree with failure links (Aho-Corasick) follows the text. It lends a phrase that has begun its
bonus so far, and takes it back if the phrase does not end. So phrases survive in the beam, and the
sum at the end is exact.
"""

import math
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.disk import numbered_lines
from fairseq_skd.files.units import WORD_END, WORD_MARK
from fairseq_skd.search.language_model import flashlight
from fairseq_skd.search.lexicon import Lexicon, check_homographs

_MARKS = {"letter": WORD_END, "sentencepiece": WORD_MARK, "wordpiece": "_"}  # between the words of a text
_MOST = 1000.0  # a weight of more would only cost precision
_MOST_SCORED = 2000  # states whose results are kept; the search forgets older ones
Text = tuple[str, ...]  # symbols: characters of the units, or whole units, or whole words


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

    def over_words(self, words: Sequence[str]) -> "Automaton":
        """Build the automaton of a search over the words of a lexicon, by index."""
        bonuses = {tuple(phrase.split(" ")): self.scale * weight for phrase, weight in self.weights.items()}
        return Automaton(bonuses, [(word,) for word in words], None, size=len)

    def over_units(self, units: Sequence[str]) -> "Automaton":
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


class Automaton:
    """Follow a text unit by unit and add up the bonuses of its phrases.

    >>> found = Automaton({("|", "A", "N", "|"): 2.0}, [("A",), ("N",), ("|",)], "|")
    >>> state, total = found.start, 0.0
    >>> for unit in (0, 1, 2, 0):  # AN A: the A might begin AN again
    ...     state, bonus = found.step(state, unit)
    ...     total += bonus
    >>> total, total + found.end(state)
    (6.0, 4.0)

    Args:
        bonuses: phrase -> bonus per character.
        texts: symbols that each unit adds to the text, by index.
        mark: symbol between words; several in a row count as one, and a text begins and ends in
            one. None: none.
        size: number of characters of a symbol but the mark.

    Attributes:
        start: state of an empty text; state 0 has matched nothing.
        reach: symbol -> largest bonus that it can add as part of a phrase.
    """

    def __init__(
        self,
        bonuses: Mapping[Text, float],
        texts: Sequence[Text],
        mark: str | None,
        size: Callable[[str], int] = lambda symbol: 1,
    ) -> None:
        self._texts, self._mark, self._size_of = texts, mark, size
        self._next: list[dict[str, int]] = [{}]
        self._last: list[str | None] = [None]  # last symbol of each state
        self._won = [0.0]  # bonuses of the phrases that end in a state
        self._lent = [0.0]  # bonus so far of the best phrase that has begun
        self.reach: dict[str, float] = {}
        for phrase, bonus in bonuses.items():
            self._insert(phrase, bonus)
        self._fail = [0] * len(self._next)
        self._link()
        self._steps: dict[tuple[int, int], tuple[int, float]] = {}
        self.start = 0 if mark is None else self._follow(0, mark)

    def _insert(self, phrase: Text, bonus: float) -> None:
        state, size = 0, 0
        for symbol in phrase:
            self._lent[state] = max(self._lent[state], bonus * size)
            if symbol not in self._next[state]:
                self._next[state][symbol] = len(self._next)
                self._next.append({})
                self._last.append(symbol)
                self._won.append(0.0)
                self._lent.append(0.0)
            state = self._next[state][symbol]
            count = 0 if symbol == self._mark else self._size_of(symbol)
            size += count
            self.reach[symbol] = max(self.reach.get(symbol, 0.0), bonus * count)
        self._won[state] += bonus * size

    def _link(self) -> None:
        """Link each state to its longest suffix that begins a phrase, shortest states first."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            self._won[state] += self._won[self._fail[state]]
            self._lent[state] = max(self._lent[state], self._lent[self._fail[state]])
            for symbol, child in self._next[state].items():
                self._fail[child] = self._follow(self._fail[state], symbol)
                waiting.append(child)

    def _follow(self, state: int, symbol: str) -> int:
        while symbol not in self._next[state]:
            if state == 0:
                return 0
            state = self._fail[state]
        return self._next[state][symbol]

    def step(self, state: int, unit: int) -> tuple[int, float]:
        """Return the state after a unit, and the bonus to add."""
        found = self._steps.get((state, unit))
        if found is None:
            found = self._steps[state, unit] = self._read(state, self._texts[unit])
        return found

    def end(self, state: int) -> float:
        """Return the bonus to add when the text ends in a state."""
        after, bonus = self._read(state, () if self._mark is None else (self._mark,))
        return bonus - self._lent[after]

    def _read(self, state: int, text: Text) -> tuple[int, float]:
        bonus = -self._lent[state]
        for symbol in text:
            if symbol != self._mark or self._last[state] != self._mark:
                state = self._follow(state, symbol)
                bonus += self._won[state]
        return state, bonus + self._lent[state]


def boosted(model: Any, weight: float, automaton: Automaton) -> Any:
    """Wrap a language model of flashlight-text; scores are natural, ``weight`` is applied.

    The result must be kept as long as a decoder uses it.
    """

    class Boosted(flashlight().LM):  # type: ignore[misc]  # a class of the optional package
        """A language model plus the bonuses of phrases."""

        def __init__(self) -> None:
            super().__init__()
            # States of the automaton but 0. As keys, the model's states stay the same objects.
            self.states: dict[Any, int] = {}
            # Results by state and unit: a hypothesis meets the same units frame after frame.
            self.scored: dict[Any, dict[int, tuple[Any, float]]] = {}

        def start(self, start_with_nothing: bool) -> Any:
            begun = model.start(start_with_nothing)
            self.states = {begun: automaton.start}
            self.scored = {}
            return begun

        def score(self, state: Any, label: int) -> tuple[Any, float]:
            known = self.scored.get(state)
            if known is None:
                if len(self.scored) == _MOST_SCORED:
                    self.scored.clear()
                known = self.scored[state] = {}
            found = known.get(label)
            if found is None:
                child, value = model.score(state, label)
                after, bonus = automaton.step(self.states.get(state, 0), label)
                if after:
                    self.states[child] = after
                found = known[label] = child, weight * value + bonus
            return found

        def finish(self, state: Any) -> tuple[Any, float]:
            child, value = model.finish(state)
            return child, weight * value + automaton.end(self.states.get(state, 0))

    return Boosted()
