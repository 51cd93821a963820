"""What a corpus says before anything is checked: its utterances and splits, and what was wrong there."""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar

from fairseq_skd.errors import UserError


class Kind(Enum):
    """A kind of problem: its heading in the report, and the mend."""

    ROW = "malformed row", "give each row a path, a text and, where the table has that column, a split"
    PATH = "path that a manifest cannot hold", "rename the file or correct the path"
    DUPLICATE = "path that stands twice in one split", "keep one of the rows"
    MISSING = "missing file", "correct the path, or the folder that it starts from"
    UNREADABLE = "file that cannot be read as audio", "replace it; WAV, FLAC, Ogg Opus and Ogg Vorbis are read"
    RATE = "sampling rate other than 16000 Hz", "add --resample, or convert the files"
    CHANNELS = "more than one channel", "write one channel of them, or the mean, to a new file"
    EMPTY_AUDIO = "audio without a sample", "remove the row"
    COMMAND = "command in the place of a file", "nothing is executed: run it once and name the file that it makes"
    SEGMENT = "segment outside its recording", "correct its times, or remove it"
    UNPAIRED = "utterance that lacks its other half", "add what is missing, or remove the rest"
    EMPTY_TEXT = "empty transcript", "write what is said, or remove the row"
    ALPHABET = "character outside the alphabet", "transcripts are the letters A-Z, the apostrophe ' and single spaces"
    TOO_LONG = "transcript too long for its audio", "correct the transcript, or remove the row"

    def __init__(self, heading: str, mend: str) -> None:
        self.heading = heading
        self.mend = mend


class Fault(NamedTuple):
    """A kind of problem and what it looks like here; ``detail`` may be empty."""

    kind: Kind
    detail: str = ""


class Problem(NamedTuple):
    """A fault and where it stands: the table's file and line (1-based), and the audio path as written there."""

    fault: Fault
    source: str
    line: int
    path: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}"
        return "  ".join(part for part in (place, self.path, self.fault.detail) if part)


def report(problems: Iterable[Problem], utterances: int) -> str:
    """All problems, grouped by kind, each on a line of its own; the last line counts them.

    Args:
        problems: at least one.
        utterances: how many utterances (rows of a table) were looked at, for the count.
    """
    groups: dict[Kind, list[Problem]] = {kind: [] for kind in Kind}
    for problem in sorted(problems, key=lambda problem: (problem.source, problem.line)):
        groups[problem.fault.kind].append(problem)
    blocks, counts = [], []
    for kind, group in groups.items():
        if group:
            listed = "".join(f"\n  {_printable(str(problem))}" for problem in group)
            blocks.append(f"{kind.heading} ({len(group)}); {kind.mend}:{listed}")
            counts.append(f"{kind.heading} {len(group)}")
    rows = len({(problem.source, problem.line) for group in groups.values() for problem in group})
    return "\n".join([*blocks, f"refused: {rows} of {utterances} rows ({', '.join(counts)}); nothing was written"])


def _printable(text: str) -> str:
    """``text`` with control characters and lone surrogates escaped: it stays one line and any terminal can show it."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class Segment(NamedTuple):
    """A stretch of a recording.

    ``name`` is that of the file it is cut into, without suffix; ``start`` and ``end`` are seconds, and an ``end`` of
    None is the recording's.
    """

    name: str
    start: float
    end: float | None


class Record(NamedTuple):
    """One utterance as its source states it: nothing is checked yet.

    ``path`` is relative to the audio root or absolute; ``speaker`` is empty where it is not known; ``source`` and
    ``line`` (1-based) say where it was read. Without a ``segment`` the utterance is the whole file.
    """

    path: str
    text: str
    split: str
    speaker: str
    source: str
    line: int
    segment: Segment | None = None

    def problem(self, fault: Fault) -> Problem:
        """``fault``, located at this record."""
        return Problem(fault, self.source, self.line, self.path)


class Corpus(NamedTuple):
    """All utterances of a source.

    Attributes:
        title: what a refusal calls it, e.g. ``the table``.
        records: in the order of the manifests to be written.
        problems: of the utterances that could not become a record.
        root: the folder that the records' paths start from.
        notes: what the reader did to the source's own notation, for the summary.
    """

    title: str
    records: list[Record]
    problems: list[Problem]
    root: Path
    notes: Sequence[str] = ()


T = TypeVar("T")

SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def choose(available: Mapping[str, T], wanted: Sequence[str] | None, default: Sequence[str]) -> dict[str, list[T]]:
    """The parts of a corpus that make each split.

    Args:
        available: the corpus's own splits.
        wanted: each is the name of one, or ``new=old+old``; None stands for ``default``.
        default: names in ``available``.

    Returns:
        for each split to write the values of ``available`` that it is made of, in the order given.

    Raises:
        UserError: if a split is asked for that is not there, or a name is given twice or unfit for a file.
    """
    chosen: dict[str, list[T]] = {}
    for word in default if wanted is None else wanted:
        new, sign, olds = word.partition("=")
        names = olds.split("+") if sign else [new]
        missing = [name for name in names if name not in available]
        if missing:
            there = ", ".join(available)
            raise UserError(f"--splits {word}: there is no split {missing[0]!r}; there are {there}")
        if not SPLIT_NAME.fullmatch(new):
            raise UserError(f"--splits {word}: {new!r} is no file name of letters, digits, '_', '-' and '.'")
        if new in chosen:
            raise UserError(f"--splits {word}: {new} is given twice; write {new}=one+other to merge")
        chosen[new] = [available[name] for name in dict.fromkeys(names)]
    return chosen
