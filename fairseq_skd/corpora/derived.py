"""Write audio that is cut from, or converted from, a corpus's own: each file once.

Segments, channels, and files of another sampling rate become new audio files, which are written
once. For each of them ``derived_audio.tsv`` notes its bytes, its first and last sample and channel
in the source, and the source's path, bytes and time of change. The next run keeps a file if all of
this still holds. Otherwise it makes the file again, and replaces one with other content only with
``--force``.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.audio import Cut, extract
from fairseq_skd.corpora.records import Fault
from fairseq_skd.corpora.validation import Utterance
from fairseq_skd.files.disk import named
from fairseq_skd.files.workers import available_cpus, run_over

CONVERTED = "audio_16khz"
SEGMENTS = "audio_segments"
NOTES = "derived_audio.tsv"
_COLUMNS = ("file", "bytes", "samples", "source", "source_bytes", "source_changed_ns", "first", "stop", "channel")


class Derived(NamedTuple):
    """An audio file to make from samples ``first`` to ``stop`` (exclusive) of a source.

    ``name`` is relative to the output folder. ``channel``: see
    :class:`~fairseq_skd.corpora.audio.Cut`.
    """

    name: str
    source: str
    first: int
    stop: int
    channel: int | str | None = None


class Note(NamedTuple):
    """A row of ``derived_audio.tsv``: bytes and samples of a file, and the state of its source."""

    size: str
    samples: str
    origin: tuple[str, ...]


def derived_name(utterance: Utterance, base: str) -> str:
    """Name the new file of an utterance, relative to the output folder."""
    segment = utterance.record.segment
    if segment:
        return f"{SEGMENTS}/{utterance.record.split}/{segment.name}.flac"
    # Appended: a.wav and a.ogg stay two files, and so do two channels of a.wav.
    channel = f".channel{utterance.channel}" if isinstance(utterance.channel, int) else ""
    return f"{CONVERTED}/{os.path.relpath(utterance.audio, base)}{channel}.flac"


def derive(wanted: Sequence[Derived], stage: Path, out: Path, jobs: int | None) -> dict[str, int | Fault]:
    """Make the files that ``out`` lacks, or that its notes no longer describe.

    Args:
        wanted: the files; each name occurs once.
        stage: staging folder for the new files and the new ``derived_audio.tsv``.
        out: output folder with the files and notes of earlier runs.
        jobs: number of processes; None: chosen here.

    Returns:
        for each name the number of samples at 16 kHz, or why the file could not be made.
    """
    notes = _read_notes(out / NOTES)
    states = {source: _state(source) for source in {item.source for item in wanted}}
    origins = {item.name: (*states[item.source], *_part(item)) for item in wanted}
    kept = {name for name, origin in origins.items() if _holds(notes.get(name), origin, out / name)}
    found: dict[str, int | Fault] = {name: int(notes[name].samples) for name in kept}
    by_source: dict[str, list[Derived]] = {}
    for item in wanted:
        if item.name not in kept:
            by_source.setdefault(item.source, []).append(item)
    tasks = [
        (source, [Cut(item.first, item.stop, str(stage / item.name), item.channel) for item in items])
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


def _extract(task: tuple[str, list[Cut]]) -> list[int | Fault]:
    return extract(*task)


def _part(item: Derived) -> tuple[str, str, str]:
    return str(item.first), str(item.stop), "" if item.channel is None else str(item.channel)


def _state(source: str) -> tuple[str, str, str]:
    """Return path, bytes and time of change of a file."""
    status = os.stat(source)
    return source, str(status.st_size), str(status.st_mtime_ns)


def _holds(note: Note | None, origin: tuple[str, ...], file: Path) -> bool:
    """Tell whether a file still has the bytes of its note, and its source is unchanged."""
    if note is None or note.origin != origin or not note.samples.isdecimal():
        return False
    try:
        return str(os.path.getsize(file)) == note.size
    except OSError:
        return False


def _read_notes(path: Path) -> dict[str, Note]:
    """Read the notes by name. Malformed lines are skipped, so their files are made again."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    rows = [line.split("\t") for line in lines[1:]]
    rows = [[*row, ""] if len(row) == len(_COLUMNS) - 1 else row for row in rows]  # earlier versions: one channel
    return {row[0]: Note(row[1], row[2], tuple(row[3:])) for row in rows if len(row) == len(_COLUMNS)}


def _write_notes(path: Path, notes: dict[str, Note]) -> None:
    rows = [_COLUMNS, *((name, note.size, note.samples, *note.origin) for name, note in sorted(notes.items()))]
    with named(path):
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
