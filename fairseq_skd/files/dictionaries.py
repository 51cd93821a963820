"""fairseq dictionaries: read ``dict.<labels>.txt`` and compare the symbols of two dictionaries."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from fairseq.data import Dictionary

from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.units import POST_PROCESSES, WORD_MARK

_FORM = "write each line as 'symbol count', such as 'A 1'"


@dataclass(frozen=True)
class Difference:
    """First index at which two dictionaries differ.

    Attributes:
        index: the index.
        first: symbol of the first dictionary there; None if the dictionary is shorter.
        second: symbol of the second dictionary there; None if the dictionary is shorter.
    """

    index: int
    first: str | None
    second: str | None

    def describe(self, first: str, second: str) -> str:
        """Name the index and both symbols; ``first`` and ``second`` name the dictionaries.

        >>> Difference(5, "E", "T").describe("the checkpoint", "task.data")
        "at index 5 the checkpoint has 'E', task.data has 'T'"
        """
        symbols = (f"{symbol!r}" if symbol is not None else "no symbol" for symbol in (self.first, self.second))
        return f"at index {self.index} {first} has {next(symbols)}, {second} has {next(symbols)}"


def read_dictionary(path: Path) -> Dictionary:
    """Read a dictionary as fairseq does, but name the line that is wrong.

    Raises:
        UserError: the file is missing, empty, not UTF-8, or has a line that fairseq cannot read.
    """
    if not path.is_file():
        raise UserError(f"dictionary {path} does not exist: put it beside the labels (fairseq_skd.manifest writes one)")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        where = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"dictionary {path} line {where} is not UTF-8: store the file as UTF-8") from error
    if text.startswith("\ufeff"):
        raise UserError(f"dictionary {path} line 1 begins with a byte order mark: store the file as UTF-8 without one")
    dictionary = Dictionary()
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        try:
            dictionary.add_from_file(io.StringIO(line))
        except ValueError as error:
            raise UserError(f"dictionary {path} line {number} is {line.rstrip()!r}: {_FORM}") from error
        except RuntimeError as error:
            symbol = line.split()[0]
            raise UserError(
                f"dictionary {path} line {number} repeats the symbol {symbol!r} (fairseq itself adds "
                f"{', '.join(Dictionary().symbols)}): delete the line"
            ) from error
    if len(dictionary) == dictionary.nspecial:
        raise UserError(f"dictionary {path} holds no symbols: {_FORM}")
    return dictionary


def first_difference(first: Sequence[str], second: Sequence[str]) -> Difference | None:
    """Find the first index at which two dictionaries differ; None if they are equal.

    >>> first_difference(["<s>", "E", "T"], ["<s>", "T", "E"])
    Difference(index=1, first='E', second='T')
    >>> first_difference(["<s>"], ["<s>"]) is None
    True
    """
    pairs = enumerate(zip_longest(first, second))
    return next((Difference(index, one, two) for index, (one, two) in pairs if one != two), None)


def fitting_post_process(process: str | None, symbols: Sequence[str], where: str) -> str:
    """Check that ``post_process`` fits the units of a dictionary.

    >>> fitting_post_process(None, ["<s>", "A", "|"], "common_eval.post_process")
    'letter'

    Args:
        process: one of fairseq's ``post_process`` names; None means ``letter``.
        symbols: symbols of the dictionary.
        where: the key that set ``process``, for messages.

    Returns:
        the name to use.

    Raises:
        UserError: ``process`` is unknown, or is ``letter`` for word pieces, or ``sentencepiece``
            for letters.
    """
    process = process or "letter"
    if process not in POST_PROCESSES:
        raise UserError(f"{where}={shown(process)} is unknown: choose one of {', '.join(POST_PROCESSES[:-1])}")
    pieces = any(symbol.startswith(WORD_MARK) for symbol in symbols)
    fitting = "sentencepiece" if pieces else "letter"
    if process in ("letter", "sentencepiece") and process != fitting:
        raise UserError(
            f"{where}={process} does not fit a dictionary {'with' if pieces else 'without'} word pieces: set it "
            f"to {fitting}"
        )
    return process
