"""Follow the phrases of a beam search, and add their bonuses to the scores.

A prefix tree with failure links (Aho-Corasick) follows the text. It lends a phrase that has begun
its bonus so far, and takes it back if the phrase does not end. So phrases survive in the beam, and
the sum at the end is exact.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairseq_skd.search.language_model import flashlight

_MOST_SCORED = 2000  # states whose results are kept; the search forgets older ones
Text = tuple[str, ...]  # symbols: characters of the units, or whole units, or whole words


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
