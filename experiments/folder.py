"""The folder of a run: its lock, and what it was begun with: command, data, code."""

import fcntl
import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


def check_folder(run: Run) -> None:
    """Refuse a folder that was begun with another command or other data: the two would be mixed.

    Raises:
        UserError: it was.
    """
    if is_of_another_command(run):
        raise UserError(f"{run.folder} holds a run of another command ({run.folder / _COMMAND}): {_MEND}")
    if has_other_data(run):
        files = ", ".join(map(str, run.data.training_files()))
        raise UserError(f"{run.folder} was begun with other data, one of these was changed since: {files}; {_MEND}")


def claim(run: Run) -> None:
    """Remember command and data.

    Raises:
        UserError: the folder was begun with others.
    """
    check_folder(run)
    with replacing(run.folder / _COMMAND) as beside:
        beside.write_text(shown(run.train) + "\n", encoding="utf-8")
    with replacing(run.folder / _DATA) as beside:
        beside.write_text(data_hash(run.data.training_files()) + "\n", encoding="utf-8")


def is_of_another_command(run: Run) -> bool:
    """Whether its folder was begun with another command."""
    command = run.folder / _COMMAND
    return command.is_file() and command.read_text(encoding="utf-8") != shown(run.train) + "\n"


def has_other_data(run: Run) -> bool:
    """Whether its folder was begun with other manifests, labels or dictionaries of training than there are now."""
    note = run.folder / _DATA
    return note.is_file() and note.read_text(encoding="utf-8").strip() != data_hash(run.data.training_files())


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


def data_hash(files: Iterable[Path]) -> str:
    """SHA-256 over files by name, manifests without their root line; a file that is not there counts as empty."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        digest.update(file.name.encode() + b"\0")
        digest.update(content.partition(b"\n")[2] if file.suffix == ".tsv" else content)
    return digest.hexdigest()


def _commit() -> str:
    """The checkout's commit, with a mark if files that git knows were changed."""
    git = ("git", "-C", str(REPOSITORY))
    head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
    changed = subprocess.run((*git, "diff", "--quiet", "HEAD"), capture_output=True).returncode
    return head.stdout.strip() + ("-changed" if changed else "") if head.returncode == 0 else "unknown"
