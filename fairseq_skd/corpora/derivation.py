"""Audio files made from others: segments that are cut out, and files of another rate converted to 16 kHz.

Each is written once. Beside them ``derived_audio.tsv`` notes from which samples of which state of the source (path,
bytes, time of change) a file was made, and how many bytes it has. In the next run a file of which all that still holds
is left alone; the others are made anew, and replace one with another content only with ``--force``.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.audio import Piece, extract
from fairseq_skd.corpora.records import Fault
from fairseq_skd.corpora.validation import Utterance
from fairseq_skd.files.disk import named
from fairseq_skd.files.workers import available_cpus, run_over

CONVERTED = "audio_16khz"
SEGMENTS = "audio_segments"
NOTES = "derived_audio.tsv"
_COLUMNS = ("file", "bytes", "samples", "source", "source_bytes", "source_changed_ns", "first", "stop")


class Derived(NamedTuple):
    """A file to be made, its name relative to the output folder, and what it is made from."""

    name: str
    source: str
    first: int
    stop: int


class Note(NamedTuple):
    """What is known of a file that was made: its bytes and samples, and the state of its source."""

    size: str
    samples: str
    origin: tuple[str, ...]


def derived_name(utterance: Utterance, base: str) -> str:
    """The name, relative to the output folder, of the file that a segment or a file of another rate becomes."""
    segment = utterance.record.segment
    if segment:
        return f"{SEGMENTS}/{utterance.record.split}/{segment.name}.flac"
    return f"{CONVERTED}/{os.path.relpath(utterance.audio, base)}.flac"  # a.wav and a.ogg stay two files


def derive(wanted: Sequence[Derived], stage: Path, out: Path, jobs: int | None) -> dict[str, int | Fault]:
    """Make the files that are not in ``out`` yet, or no longer as they should be, in ``stage``.

    Args:
        wanted: no name twice.
        stage: whose files are going to be moved to ``out``; a new ``derived_audio.tsv`` is among them.
        out: with the files and the notes of earlier runs.
        jobs: processes; None chooses.

    Returns:
        for each name the samples at 16 kHz, or why it could not be made.
    """
    notes = _read_notes(out / NOTES)
    states = {source: _state(source) for source in {item.source for item in wanted}}
    origins = {item.name: (*states[item.source], str(item.first), str(item.stop)) for item in wanted}
    kept = {name for name, origin in origins.items() if _holds(notes.get(name), origin, out / name)}
    found: dict[str, int | Fault] = {name: int(notes[name].samples) for name in kept}
    by_source: dict[str, list[Derived]] = {}
    for item in wanted:
        if item.name not in kept:
            by_source.setdefault(item.source, []).append(item)
    tasks = [
        (source, [Piece(item.first, item.stop, str(stage / item.name)) for item in items])
        for source, items in by_source.items()
    ]
    jobs = jobs or min(available_cpus(), len(tasks))
    for items, lengths in zip(by_source.values(), run_over(_extract, tasks, jobs, "writing audio"), strict=True):
        found.update(zip((item.name for item in items), lengths, strict=True))
    for name, samples in found.items():
        if name not in kept and isinstance(samples, int):
            notes[name] = Note(str(os.path.getsize(stage / name)), str(samples), origins[name])
    _write_notes(stage / NOTES, notes)
    return found


def _extract(task: tuple[str, list[Piece]]) -> list[int | Fault]:
    return extract(*task)


def _state(source: str) -> tuple[str, str, str]:
    """Path, bytes and time of change of a file."""
    status = os.stat(source)
    return source, str(status.st_size), str(status.st_mtime_ns)


def _holds(note: Note | None, origin: tuple[str, ...], file: Path) -> bool:
    """Whether a file is there as its note says, made from what it would be made from now."""
    if note is None or note.origin != origin or not note.samples.isdecimal():
        return False
    try:
        return str(os.path.getsize(file)) == note.size
    except OSError:
        return False


def _read_notes(path: Path) -> dict[str, Note]:
    """The notes by name; lines of another form, as of another version, count as absent: their files are made anew."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    rows = [line.split("\t") for line in lines[1:]]
    return {row[0]: Note(row[1], row[2], tuple(row[3:])) for row in rows if len(row) == len(_COLUMNS)}


def _write_notes(path: Path, notes: dict[str, Note]) -> None:
    rows = [_COLUMNS, *((name, note.size, note.samples, *note.origin) for name, note in sorted(notes.items()))]
    with named(path):
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
