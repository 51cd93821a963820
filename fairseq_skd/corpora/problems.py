"""What can be wrong with an utterance, collected so that the user sees all of it at once."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


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
