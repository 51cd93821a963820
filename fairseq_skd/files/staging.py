"""Replace several files of a folder together: all of them, or none.

POSIX cannot replace several files at once. After an error, Ctrl-C or SIGTERM all files are moved
back. A kill -9 between two moves leaves the list of files to move, and :func:`refuse_incomplete`
refuses the folder.
"""

import fcntl
import filecmp
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import tracked

# A staging folder, inside the folder to change, holds a lock that lasts as long as the process, the
# new files, the files that they replace, and, while they move, the list of their names.
PREFIX = ".staged-"
_LOCK, _FILES, _KEPT, _MOVING = "lock", "files", "kept", "moving"
_ABANDONED_AFTER = 60  # seconds after which a staging folder without a lock has no owner


@contextmanager
def staged(out: Path, force: bool = False, free: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty staging folder, whose files move to ``out`` when the block succeeds.

    If the block fails (an error, Ctrl-C), everything new is removed, including ``out`` if it did
    not exist. Leftovers of killed processes are removed first.

    Args:
        out: the folder to change; it is created if it is missing.
        force: replace files that exist with other content.
        free: names of files that are replaced without ``force``: our own notes.

    Raises:
        UserError: ``out`` cannot be written, or a file would be replaced without ``force``.
    """
    created = _make(out)
    for leftover in out.glob(f"{PREFIX}*"):
        if not (leftover / _MOVING).exists():
            _remove_if_abandoned(leftover)
    try:
        place = out / Path(tempfile.mkdtemp(prefix=PREFIX, dir=out)).name  # mkdtemp is absolute from Python 3.12 on
    except OSError as error:
        _remove(created)
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    lock: TextIO | None = None
    try:
        lock = (place / _LOCK).open("w")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (place / _FILES).mkdir()
        yield place / _FILES
        _commit(place, out, force, free)
        created = []
    finally:
        _clear(place)
        if lock is not None:
            lock.close()
        _remove(created)


def refuse_incomplete(folder: Path) -> None:
    """Check that no process was killed while it replaced files in a folder.

    Raises:
        UserError: a process was killed, and its files have not been written again.
    """
    for moving in folder.glob(f"{PREFIX}*/{_MOVING}"):
        first = moving.read_text(encoding="utf-8").partition("\n")[0]
        raise UserError(
            f"{folder} is incomplete: fairseq_skd.manifest was killed while it replaced {first} and others; run "
            f"the same command again with --force"
        )


def _remove_if_abandoned(place: Path) -> None:
    """Remove a staging folder, unless a running process holds its lock or may be about to."""
    with suppress(OSError):
        if not (place / _LOCK).exists():
            if time.time() - place.stat().st_mtime > _ABANDONED_AFTER:
                _clear(place)
            return
        with (place / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(place)


def _clear(place: Path) -> None:
    """Remove a staging folder, the lock last: without it a half-removed folder looks new."""
    for name in (_MOVING, _FILES, _KEPT):
        if (place / name).is_dir():
            shutil.rmtree(place / name, ignore_errors=True)
        else:
            (place / name).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)


def _make(folder: Path) -> list[Path]:
    """Create ``folder``; return the folders that were missing, outermost first."""
    missing = [level for level in (folder, *folder.parents) if not level.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove(missing)
        raise UserError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from error
    return missing


def _remove(folders: list[Path]) -> None:
    """Remove the folders that exist and are empty, innermost first."""
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def refuse_conflicts(stage: Path, out: Path, force: bool, free: Collection[str] = ()) -> list[Path]:
    """List the files of ``stage`` (relative paths) that ``out`` lacks or has with other content.

    Raises:
        UserError: ``out`` has a file with other content, and neither ``force`` nor ``free`` allows
            replacing it.
    """
    changed = [name for name in _files(stage) if not _same(stage / name, out / name)]
    present = [name for name in changed if (out / name).exists() and str(name) not in free]
    if present and not force:
        others = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        fix = "add --force to replace it, or choose another --out"
        raise UserError(f"{out / present[0]}{others} exists with other content; {fix}")
    return changed


def _files(stage: Path) -> list[Path]:
    return [path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()]


def _commit(place: Path, out: Path, force: bool, free: Collection[str]) -> None:
    """Move the new files to ``out``; if one move fails, undo the earlier moves."""
    stage, kept, moving = place / _FILES, place / _KEPT, place / _MOVING
    written = {str(name) for name in _files(stage)}
    changed = refuse_conflicts(stage, out, force, free)
    if changed:
        moving.write_text("".join(f"{name}\n" for name in changed), encoding="utf-8")
    moved: list[Path] = []
    created: list[Path] = []
    try:
        for name in tracked(changed, "moving files", "file"):
            moved.append(name)
            created += _make((out / name).parent)
            if (out / name).exists():
                (kept / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(out / name, kept / name)
            os.replace(stage / name, out / name)
    except BaseException:
        for name in reversed(moved):
            if (kept / name).exists():
                os.replace(kept / name, out / name)
            elif not (stage / name).exists():
                (out / name).unlink(missing_ok=True)
        _remove(created)
        moving.unlink(missing_ok=True)
        raise
    moving.unlink(missing_ok=True)
    # A killed process left its list: the folder is complete again if all its files are written now.
    for other in out.glob(f"{PREFIX}*/{_MOVING}"):
        if written.issuperset(other.read_text(encoding="utf-8").splitlines()):
            _remove_if_abandoned(other.parent)


def _same(left: Path, right: Path) -> bool:
    """Whether two files have the same bytes."""
    return right.is_file() and filecmp.cmp(left, right, shallow=False)
