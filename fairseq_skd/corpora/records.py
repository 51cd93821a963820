"""A corpus as its source states it, before any check; and the report of problems."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar

from fairseq_skd.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph")
MOST_LINES = 100  # of one kind in a report
_NAMELESS = {"Co": "private use", "Cs": "half of a surrogate pair", "Cn": "not assigned"}


class Kind(Enum):
    """A kind of problem: its heading in the report, and how to fix it."""

    ROW = "malformed row", "give each row a path, a text and, if the table has that column, a split"
    PATH = "path that a manifest cannot hold", "rename the file or correct the path"
    DUPLICATE = "path that occurs twice in a split", "keep one of the rows"
    MISSING = "missing file", "correct the path, or the folder that it starts from"
    UNREADABLE = (
        "file that cannot be read as audio",
        "replace it; WAV, FLAC, SPHERE, MP3, Ogg Opus and Ogg Vorbis are read; M4A, AAC, WMA and video are not: "
        "convert them, ffmpeg -i FILE NEW.flac",
    )
    RATE = "sampling rate other than 16000 Hz", "add --resample, or convert the files"
    CHANNELS = "more than one channel", "add --channel mean, or --channel 0 for the first"
    NO_CHANNEL = "channel that the file does not have", "channels count from 0: correct the source or --channel"
    EMPTY_AUDIO = "audio without samples", "remove the row"
    COMMAND = "command instead of a file", "commands are not executed: run it once and name the file that it makes"
    SEGMENT = "segment outside its recording", "correct its times, or remove it"
    UNPAIRED = "utterance without audio or transcript", "add what is missing, or remove the rest"
    EMPTY_TEXT = "empty transcript", "write what is said, or remove the row"
    NUMBER = (
        "number that is not spelt",
        "--normalize digits spells cardinal numbers only: write what is said, or remove the row",
    )
    ALPHABET = "character outside the alphabet", "correct the transcripts, or change the alphabet as said for each"
    TOO_LONG = "transcript too long for its audio", "correct the transcript, or remove the row"

    def __init__(self, heading: str, fix: str) -> None:
        self.heading = heading
        self.fix = fix


_ONE_OPTION = (Kind.RATE, Kind.CHANNELS)
"""Kinds that one option fixes in all rows: the report counts them instead of listing the rows."""


class Outside(NamedTuple):
    """A symbol outside the alphabet: how often it occurs in a transcript, and what to do."""

    symbol: str
    times: int
    fix: str


class Fault(NamedTuple):
    """A kind of problem and its details, which may be empty.

    Attributes:
        kind: the kind.
        detail: what is wrong with this utterance.
        outside: symbols outside the alphabet. The report lists each symbol once, instead of one
            line per utterance.
    """

    kind: Kind
    detail: str = ""
    outside: tuple[Outside, ...] = ()


class Problem(NamedTuple):
    """A fault and its place: file and line (from 1) of the source, and the audio path there."""

    fault: Fault
    source: str
    line: int
    path: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}"
        return "  ".join(part for part in (place, self.path, self.fault.detail) if part)


def report(
    problems: Iterable[Problem],
    utterances: int,
    verdict: str = "refused",
    then: str = "nothing was written",
    each_row: bool = False,
) -> str:
    """List problems, grouped by kind; the last line counts them.

    Symbols outside the alphabet, sampling rates and numbers of channels are listed once each, with
    the first row. Other kinds have one line per row, at most :data:`MOST_LINES`.

    Args:
        problems: at least one.
        utterances: number of utterances (rows of a table) that were checked.
        verdict: what happened to the rows.
        then: end of the last line; may be empty.
        each_row: list all rows of all kinds.
    """
    groups: dict[Kind, list[Problem]] = {kind: [] for kind in Kind}
    for problem in sorted(problems, key=lambda problem: (problem.source, problem.line)):
        groups[problem.fault.kind].append(problem)
    blocks, counts = [], []
    for kind, group in groups.items():
        if group:
            lines = _symbols(group)
            if each_row or kind not in _ONE_OPTION:
                rows = [str(problem) for problem in group if each_row or not problem.fault.outside]
                lines += rows if each_row else _shortened(rows, "rows")
            else:
                lines += _shortened(_details(group), "kinds")
            listed = "".join(f"\n  {_printable(line)}" for line in lines)
            blocks.append(f"{kind.heading} ({len(group)}); {kind.fix}:{listed}")
            counts.append(f"{kind.heading} {len(group)}")
    bad = len({(problem.source, problem.line) for group in groups.values() for problem in group})
    last = f"{verdict}: {bad} of {utterances} rows ({', '.join(counts)})"
    return "\n".join([*blocks, f"{last}; {then}" if then else last])


def _symbols(problems: Iterable[Problem]) -> list[str]:
    """List the symbols outside the alphabet, the most frequent first."""
    found: dict[str, list[tuple[Outside, Problem]]] = {}
    for problem in problems:
        for outside in problem.fault.outside:
            found.setdefault(outside.symbol, []).append((outside, problem))
    counted = sorted((-sum(one.times for one, _ in places), symbol) for symbol, places in found.items())
    lines = []
    for count, symbol in counted:
        outside, first = found[symbol][0]
        lines.append(f"{described(symbol)}  {_times(-count)} {first.source}:{first.line}; {outside.fix}")
    return _shortened(lines, "symbols")


def _details(problems: Iterable[Problem]) -> list[str]:
    """List the details of problems, each once with its first row, the most frequent first."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.fault.detail, []).append(problem)
    counted = sorted(found.items(), key=lambda item: -len(item[1]))
    return [
        f"{detail}  {_times(len(rows))} {rows[0].source}:{rows[0].line}  {rows[0].path}" for detail, rows in counted
    ]


def _times(count: int) -> str:
    return "once, in" if count == 1 else f"{count} times, first"


def _shortened(lines: list[str], noun: str) -> list[str]:
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"and {more} other {noun}"]


def described(symbol: str) -> str:
    """Show a symbol; one character with its code point and Unicode name.

    >>> described("\u00df"), described("tS")
    ("'ß' (U+00DF LATIN SMALL LETTER SHARP S)", "'tS'")
    """
    if len(symbol) > 1:
        return repr(symbol)
    kind = _NAMELESS.get(unicodedata.category(symbol), "control character")
    return f"{symbol!r} (U+{ord(symbol):04X} {unicodedata.name(symbol, kind)})"


def _printable(text: str) -> str:
    """Escape control characters and lone surrogates, so that any terminal shows one line."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class Segment(NamedTuple):
    """A segment of a recording.

    Attributes:
        name: name of the file to cut it into, without suffix.
        start: start in seconds.
        end: end in seconds; None: the end of the recording.
        slack: a segment that leaves out at most so many seconds of its recording is the recording
            itself, which is not cut: some sources state times for each utterance, and round them.
    """

    name: str
    start: float
    end: float | None
    slack: float = 0.0


class Record(NamedTuple):
    """One utterance as its source states it, unchecked.

    Attributes:
        path: audio file, absolute or relative to the audio root.
        text: transcript.
        split: name of the split.
        speaker: empty if unknown.
        source: file that states the utterance.
        line: line in that file, from 1.
        segment: part of the audio file; None: all of it.
        channel: channel of the audio file that the source names, from 0; None: it names none.
    """

    path: str
    text: str
    split: str
    speaker: str
    source: str
    line: int
    segment: Segment | None = None
    channel: int | None = None

    def problem(self, fault: Fault) -> Problem:
        """Locate a fault at this record."""
        return Problem(fault, self.source, self.line, self.path)


class Corpus(NamedTuple):
    """All utterances of a source.

    Attributes:
        title: name in messages, e.g. ``the table``.
        records: utterances in the order of the manifests.
        problems: problems of utterances that could not become a record.
        root: the folder that the records' paths start from.
        notes: changes to the source's own notation, for the summary.
        language: language of the transcripts that the source names, such as ``de``; several names
            have commas between; empty: it names none.
    """

    title: str
    records: list[Record]
    problems: list[Problem]
    root: Path
    notes: Sequence[str] = ()
    language: str = ""


def common_root(records: Iterable[Record], start: str) -> Path:
    """Find the deepest folder that contains all records' absolute paths; ``start`` if none."""
    folders = {os.path.dirname(record.path) for record in records}
    return Path(os.path.commonpath(folders)) if folders else Path(start)


T = TypeVar("T")

SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def choose(available: Mapping[str, T], wanted: Sequence[str] | None, default: Sequence[str]) -> dict[str, list[T]]:
    """Choose, rename and merge the splits of a corpus.

    >>> choose({"dev": 1, "train-a": 2, "train-b": 3}, ["train=train-a+train-b", "dev"], [])
    {'train': [2, 3], 'dev': [1]}

    Args:
        available: the corpus's own splits.
        wanted: each is a name in ``available``, or ``new=old+old``; None means ``default``.
        default: names in ``available``.

    Returns:
        for each split to write, the values of ``available`` that it is made of, in the order given.

    Raises:
        UserError: a split does not exist, or a name is given twice or cannot be a file name.
    """
    chosen: dict[str, list[T]] = {}
    for word in default if wanted is None else wanted:
        new, sign, olds = word.partition("=")
        names = olds.split("+") if sign else [new]
        missing = [name for name in names if name not in available]
        if missing:
            there = ", ".join(available)
            raise UserError(f"--splits {word}: there is no split {missing[0]!r}; choose from {there}")
        if not SPLIT_NAME.fullmatch(new):
            raise UserError(f"--splits {word}: {new!r} is not a file name of letters, digits, '_', '-' and '.'")
        if new in chosen:
            raise UserError(f"--splits {word}: {new} is given twice; write {new}=one+other to merge")
        chosen[new] = [available[name] for name in dict.fromkeys(names)]
    return chosen
