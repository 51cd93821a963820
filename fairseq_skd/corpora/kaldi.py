"""Read Kaldi data folders: ``wav.scp``, ``text``, optionally ``segments`` and ``utt2spk``.

Commands in ``wav.scp`` are refused, never executed.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import Corpus, Fault, Kind, Problem, Record, Segment, choose, common_root
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import numbered_lines

_OFFSET = re.compile(r".*\.ark:\d+")
_NAME = re.compile(r"[^\s/\\]+")


class _Entry(NamedTuple):
    """The rest of a line after its key, and the line's number."""

    value: str
    line: int


class _Folder:
    """The files of a data folder, each as a dict from key to entry."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.problems: list[Problem] = []
        for name in ("wav.scp", "text"):
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: no such file; a Kaldi data folder has wav.scp and text")
        self.audio, self.texts = self.read("wav.scp"), self.read("text")
        self.speakers = self.read("utt2spk") if (folder / "utt2spk").is_file() else {}
        self.segments = self.read("segments") if (folder / "segments").is_file() else None

    def read(self, name: str) -> dict[str, _Entry]:
        """Read one file."""
        entries: dict[str, _Entry] = {}
        for line, content in numbered_lines(self.path / name):
            key, *rest = content.split(None, 1)
            if key in entries:
                self.fault(name, line, key, Kind.DUPLICATE, f"as in line {entries[key].line}")
            entries.setdefault(key, _Entry(rest[0] if rest else "", line))
        return entries

    def fault(self, name: str, line: int, key: str, kind: Kind, detail: str) -> None:
        """Record a problem of a line."""
        self.problems.append(Problem(Fault(kind, detail), str(self.path / name), line, key))


def read_kaldi(folders: Sequence[Path], splits: Sequence[str] | None = None, audio_root: Path | None = None) -> Corpus:
    """Read data folders; each is a split with the folder's name.

    Args:
        folders: each has ``wav.scp`` and ``text``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes all.
        audio_root: folder that relative paths in ``wav.scp`` start from; None means the current
            folder, as in Kaldi.

    Raises:
        UserError: a file is missing or unreadable, two folders have one name, or a split of
            ``splits`` does not exist.
    """
    available: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in available:
            raise UserError(f"{folder}: two folders are named {name}, which names the split; rename one of them")
        available[name] = folder
    start = os.path.abspath(audio_root or ".")
    records: list[Record] = []
    problems: list[Problem] = []
    for split, sources in choose(available, splits, list(available)).items():
        for source in sources:
            files = _Folder(source)
            records += _records(files, split, start)
            problems += files.problems
    return Corpus("the Kaldi data", records, problems, common_root(records, start))


def _records(folder: _Folder, split: str, start: str) -> list[Record]:
    """Make records in the order of ``segments``, or of ``wav.scp`` if there are no segments."""
    paths = {key: _audio_path(folder, key, entry, start) for key, entry in folder.audio.items()}
    records = []
    file = "wav.scp" if folder.segments is None else "segments"
    for key, entry in (folder.audio if folder.segments is None else folder.segments).items():
        text = folder.texts.pop(key, None)
        recording, segment = key, None
        if folder.segments is not None:
            read = _segment(folder, key, entry)
            if read is None:
                continue
            recording, segment = read
        if recording not in paths:
            folder.fault(file, entry.line, key, Kind.UNPAIRED, f"no recording {recording} in wav.scp")
        elif text is None:
            folder.fault(file, entry.line, key, Kind.UNPAIRED, "no line in text")
        elif path := paths[recording]:
            speaker = folder.speakers.get(key, _Entry("", 0)).value
            place = str(folder.path / "text"), text.line  # where the user corrects the words
            records.append(Record(path, " ".join(text.value.split()), split, speaker, *place, segment))
    for key, entry in folder.texts.items():
        folder.fault("text", entry.line, key, Kind.UNPAIRED, f"no line in {file}")
    return records


def _audio_path(folder: _Folder, key: str, entry: _Entry, start: str) -> str | None:
    """Return the absolute path of a recording; None if ``wav.scp`` has no path."""
    if entry.value.endswith("|") or entry.value.startswith("|"):
        detail = f"{entry.value}; uncompressed SPHERE files need no command"
        folder.fault("wav.scp", entry.line, key, Kind.COMMAND, detail)
    elif not entry.value:
        folder.fault("wav.scp", entry.line, key, Kind.ROW, "no path")
    elif _OFFSET.fullmatch(entry.value):
        folder.fault("wav.scp", entry.line, key, Kind.ROW, f"{entry.value} is an offset in an archive, not a file")
    else:
        return os.path.normpath(os.path.join(start, entry.value))
    return None


def _segment(folder: _Folder, key: str, entry: _Entry) -> tuple[str, Segment] | None:
    """Parse a line ``utterance recording start end``; an end of -1 is the end of the recording."""
    fields = entry.value.split()
    try:
        recording, start, end = fields[0], float(fields[1]), float(fields[2])
    except (ValueError, IndexError):
        folder.fault("segments", entry.line, key, Kind.ROW, "not a line 'utterance recording start end', in seconds")
        return None
    if not _NAME.fullmatch(key) or key.startswith("."):
        folder.fault("segments", entry.line, key, Kind.PATH, "the utterance's name cannot be a file name")
        return None
    return recording, Segment(key, start, None if end == -1 else end)
