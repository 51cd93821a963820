"""The folder of a run: its lock, and what it was begun with: command, data, code."""

import fcntl
import hashlib
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from experiments.grid import Run, shown
from experiments.grid_file import REPOSITORY
from fairseq_skd.errors import UserError
from fairseq_skd.files import replacing

_COMMAND = "command.txt"
_DATA = "data.sha256"
_COMMITS = "commits"
_MEND = "move it away, or give another --out"


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[int | None]:
    """The descriptor of a lock that this process holds, or None if another one does.

    The system frees it when this process and those that it was passed on to have ended, however they end.
    """
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield handle.fileno()


def claim(run: Run) -> None:
    """Remember the command; a folder that was begun with another one is not mixed with this.

    Raises:
        UserError: it was.
    """
    if is_of_another_command(run):
        raise UserError(f"{run.folder} holds a run of another command ({run.folder / _COMMAND}): {_MEND}")
    with replacing(run.folder / _COMMAND) as beside:
        beside.write_text(shown(run.train) + "\n", encoding="utf-8")


def is_of_another_command(run: Run) -> bool:
    """Whether its folder was begun with another command."""
    command = run.folder / _COMMAND
    return command.is_file() and command.read_text(encoding="utf-8") != shown(run.train) + "\n"


def note_data(run: Run) -> None:
    """Remember which data a run began with, and refuse to go on with others.

    Raises:
        UserError: a manifest, a label file or the dictionary was changed since.
    """
    note, found = run.folder / _DATA, data_hash(*run.data)
    if not note.is_file():
        with replacing(note) as beside:
            beside.write_text(found + "\n", encoding="utf-8")
    elif note.read_text(encoding="utf-8").strip() != found:
        folders = " and ".join(map(str, run.data))
        raise UserError(
            f"{run.folder} was begun with other manifests, labels or dictionary than {folders} has now: {_MEND}"
        )


def note_commit(run: Run) -> None:
    """Add the code that trains from here on to what trained before."""
    notes = run.folder / _COMMITS
    with notes.open("a", encoding="utf-8") as handle:
        handle.write(f"{_commit()}\n")


def begun(run: Run) -> bool:
    """Whether its folder was claimed."""
    return (run.folder / _COMMAND).is_file()


def began_with(run: Run) -> tuple[str, str]:
    """The commits that trained it, and the hash of its data, as they were noted."""
    commits = (run.folder / _COMMITS).read_text(encoding="utf-8").split()
    return ", ".join(dict.fromkeys(commits)), (run.folder / _DATA).read_text(encoding="utf-8").strip()


def data_hash(*folders: Path) -> str:
    """SHA-256 over manifests (without their root line), labels and dictionaries: equal where the data is the same."""
    files = list(itertools.chain.from_iterable(sorted(folder.iterdir()) for folder in folders))
    splits = {file.stem for file in files if file.suffix == ".tsv"}
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and (file.stem in splits or fnmatch(file.name, "dict.*.txt")):
            content = file.read_bytes()
            digest.update(file.name.encode() + b"\0")
            digest.update(content.partition(b"\n")[2] if file.suffix == ".tsv" else content)
    return digest.hexdigest()


def _commit() -> str:
    """The checkout's commit, with a mark if files that git knows were changed."""
    git = ("git", "-C", str(REPOSITORY))
    head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
    changed = subprocess.run((*git, "diff", "--quiet", "HEAD"), capture_output=True).returncode
    return head.stdout.strip() + ("-changed" if changed else "") if head.returncode == 0 else "unknown"
