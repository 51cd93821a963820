"""What a corpus says before anything is checked: its utterances, where each was read, what was wrong there."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.problems import Fault, Problem


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
