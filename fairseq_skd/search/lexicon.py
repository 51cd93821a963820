"""The lexicon of a beam search: its words and their spellings in the units of the CTC head."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.errors import UserError

BOUNDARIES = ("<sep>", "|")  # units that end a word; fairseq's decoders try them in this order
HOMOGRAPHS = 6  # words per spelling that flashlight-text keeps; it drops others silently
_SHOWN = 3


@dataclass(frozen=True)
class Lexicon:
    """Words and their spellings.

    Attributes:
        path: the file.
        words: spellings of each word as indices of units, in the file's order.
    """

    path: Path
    words: dict[str, list[tuple[int, ...]]]

    def spans(self, words: Sequence[str], units: Sequence[int], silence: int) -> list[tuple[int, int]] | None:
        """Find the units of each word.

        Args:
            words: words of the lexicon.
            units: units that spell them, with any number of silences between words.
            silence: index of the unit of silence.

        Returns:
            (first, one past the last) unit of each word, without silence at its end; None if the
            units do not spell the words.
        """
        ways: list[dict[int, tuple[int, int]]] = [{0: (0, 0)}]  # per word: its end -> (its begin, the previous end)
        for word in words:
            reached: dict[int, tuple[int, int]] = {}
            for previous in ways[-1]:
                for begin in _after_silence(units, previous, silence):
                    for spelling in self.words.get(word, ()):
                        end = begin + len(spelling)
                        if tuple(units[begin:end]) == spelling:
                            reached.setdefault(end, (begin, previous))
            ways.append(reached)
        place = next((end for end in ways[-1] if len(units) in _after_silence(units, end, silence)), None)
        if place is None:
            return None
        found = []
        for reached in reversed(ways[1:]):
            begin, previous = reached[place]
            end = place
            while end - begin > 1 and units[end - 1] == silence:
                end -= 1
            found.append((begin, end))
            place = previous
        return found[::-1]


def _after_silence(units: Sequence[int], begin: int, silence: int) -> Iterator[int]:
    """Yield ``begin``, and the indices after each silence that follows it."""
    yield begin
    while begin < len(units) and units[begin] == silence:
        begin += 1
        yield begin


class Coverage(NamedTuple):
    """Words of references that a lexicon lacks.

    Attributes:
        missing: number of words that the lexicon lacks.
        words: number of all words.
        distinct: number of different words among the missing.
    """

    missing: int
    words: int
    distinct: int


def boundary_of(symbols: Iterable[str]) -> str | None:
    """Find the unit that separates words; None for word pieces and phones, which need none."""
    there = set(symbols)
    return next((boundary for boundary in BOUNDARIES if boundary in there), None)


def read_lexicon(path: Path, symbols: Sequence[str], specials: int) -> Lexicon:
    """Read lines ``WORD<TAB>unit unit ...``; a word may have several lines.

    Args:
        path: the file.
        symbols: symbols of the dictionary, by index.
        specials: number of fairseq's own symbols, which come first and spell nothing.

    Raises:
        UserError: the file is missing, empty or not UTF-8, lines have no spelling, units are not in
            the dictionary, spellings do not end in the word boundary, or more words share one
            spelling than the search keeps.
    """
    if not path.is_file():
        raise UserError(f"lexicon {path} does not exist: check the path")
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"lexicon {path} is not UTF-8 text (byte {error.start + 1}): convert it to UTF-8") from error
    index = {symbol: number for number, symbol in enumerate(symbols) if number >= specials}
    boundary = boundary_of(index)
    words: dict[str, list[tuple[int, ...]]] = {}
    short, foreign, open_ended = [], [], []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        word, spelling = fields[0], fields[1:]
        unknown = [unit for unit in spelling if unit not in index]
        if not spelling:
            short.append(f"line {number}: {word}")
        elif unknown:
            foreign.append(f"line {number}: {unknown[0]} in {word}")
        elif boundary is not None and spelling[-1] != boundary:
            open_ended.append(f"line {number}: {word}")
        else:
            units = tuple(index[unit] for unit in spelling)
            if units not in words.setdefault(word, []):
                words[word].append(units)
    _refuse(path, short, "have no spelling", "write 'WORD<TAB>unit unit ...'")
    _refuse(path, foreign, "hold units that the dictionary lacks", "use units of the dictionary")
    _refuse(path, open_ended, f"have a spelling that does not end in {boundary}", f"end each word in {boundary}")
    if not words:
        raise UserError(f"lexicon {path} holds no words: write lines 'WORD<TAB>unit unit ...'")
    check_homographs(path, words)
    return Lexicon(path, words)


def coverage(lexicon: Lexicon, sentences: Iterable[str]) -> Coverage:
    """Count the words of ``sentences`` that the lexicon lacks."""
    words = [word for sentence in sentences for word in sentence.split()]
    missing = [word for word in words if word not in lexicon.words]
    return Coverage(len(missing), len(words), len(set(missing)))


def _refuse(path: Path, lines: list[str], fault: str, fix: str) -> None:
    if lines:
        more = ", ..." if len(lines) > _SHOWN else ""
        raise UserError(f"lexicon {path}: {len(lines)} lines {fault} ({'; '.join(lines[:_SHOWN])}{more}): {fix}")


def check_homographs(path: Path, words: dict[str, list[tuple[int, ...]]]) -> None:
    """Check that the search can keep all words of each spelling.

    Raises:
        UserError: more words share one spelling than the search keeps.
    """
    spelt: dict[tuple[int, ...], list[str]] = {}
    for word, spellings in words.items():
        for units in spellings:
            spelt.setdefault(units, []).append(word)
    for alike in spelt.values():
        if len(alike) > HOMOGRAPHS:
            raise UserError(
                f"lexicon {path}: {len(alike)} words share one spelling ({', '.join(alike[:_SHOWN])}, ...), but the "
                f"search keeps {HOMOGRAPHS}: leave out the rarest"
            )
