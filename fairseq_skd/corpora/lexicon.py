"""The lexicon of beam search: each word and its units, in the form that fairseq's decoders read."""

from collections.abc import Iterable
from pathlib import Path

from fairseq_skd.corpora.problems import Fault, Kind, Problem, report
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import numbered_lines
from fairseq_skd.files.units import Units, foreign_characters


def lexicon(words: Iterable[str], units: Units) -> str:
    """``WORD<TAB>W O R D |`` for each distinct word, sorted."""
    return "".join(f"{word}\t{' '.join(units.split(word))}\n" for word in sorted(set(words)))


def read_words(path: Path, units: Units) -> list[str]:
    """A list of words, one on each line.

    Raises:
        UserError: if it cannot be read or holds no word; or listing every line that is not one word in the alphabet.
    """
    words: list[str] = []
    problems: list[Problem] = []
    for line, word in numbered_lines(path):
        foreign = foreign_characters(word) + [" "] * (" " in word)
        reason = f"{word!r}: {' '.join(map(repr, foreign))}" if foreign else units.missing(word)
        problems += [Problem(Fault(Kind.ALPHABET, reason), str(path), line, "")] if reason else []
        words.append(word)
    if problems:
        raise UserError(f"the list of words is refused\n{report(problems, len(words))}")
    if not words:
        raise UserError(f"{path}: holds no word; put one on each line")
    return words
