"""The audio that a command line names: files, folders, manifests and standard input."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.errors import UserError
from fairseq_skd.files.subset import read_manifest

STDIN = "-"
# What libsndfile reads, by the usual names of such files.
SUFFIXES = frozenset(
    (
        *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
        *(".sph", ".nist", ".w64", ".rf64", ".voc"),
    )
)


class Source(NamedTuple):
    """One audio file.

    Attributes:
        path: the file to read.
        shown: the path as the user wrote it; ``-`` for standard input.
        name: the path below the deepest folder that holds all audio, without suffix.
    """

    path: str
    shown: str
    name: str


def find_audio(arguments: Sequence[str], scratch: Path) -> list[Source]:
    """List the audio files of a command line, in its order; folders are searched, sorted by name.

    Args:
        arguments: files, folders, manifests (``.tsv``), ``-`` for standard input.
        scratch: temporary folder; standard input is copied into it.

    Raises:
        UserError: a file does not exist, a folder or manifest lists no audio, or standard input is
            a terminal or empty.
    """
    found: list[tuple[str, str]] = []  # path, path as shown
    for argument in arguments:
        path = Path(argument).expanduser()
        if argument == STDIN:
            found.append((_standard_input(scratch), STDIN))
        elif path.is_dir():
            found += [(file, file) for file in _files_below(path)]
        elif path.suffix.lower() == ".tsv":
            subset = read_manifest(path.parent, path.stem, given=f"AUDIO {argument}")
            found += [(subset.path(index), subset.path(index)) for index in range(len(subset.names))]
        elif path.is_file() or ".zip:" in argument:
            found.append((str(path), argument))
        elif path.exists():
            raise UserError(
                f"AUDIO {argument} is a pipe or a device: give a file, or - and the audio on standard input"
            )
        else:
            raise UserError(f"AUDIO {argument} does not exist: give audio files, folders, a .tsv manifest, or -")
    return _named(found)


def _files_below(folder: Path) -> list[str]:
    files = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    if not files:
        raise UserError(f"AUDIO {folder} holds no audio files: they end in {', '.join(sorted(SUFFIXES))}")
    return sorted(files)


def _standard_input(scratch: Path) -> str:
    if sys.stdin.isatty():
        raise UserError("AUDIO - reads an audio file from standard input, which is a terminal: write '- < FILE'")
    file = scratch / "stdin"
    with file.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    if not file.stat().st_size:
        raise UserError("AUDIO - reads an audio file from standard input, which is empty: write '- < FILE'")
    return str(file)


def _named(found: Sequence[tuple[str, str]]) -> list[Source]:
    """Give each file a name of its own: without suffix if that is enough, else with it."""
    files = [os.path.abspath(path) for path, shown in found if shown != STDIN]
    folder = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    names = ["stdin" if shown == STDIN else os.path.relpath(os.path.abspath(path), folder) for path, shown in found]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"AUDIO names {twice[0]} twice: give each file once")
    short = [os.path.splitext(name)[0] for name in names]
    counts = Counter(short)
    return [
        Source(path, shown, brief if counts[brief] == 1 and brief not in names else name)
        for (path, shown), brief, name in zip(found, short, names, strict=True)
    ]
