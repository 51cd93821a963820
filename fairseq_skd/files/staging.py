"""Changing several files of a folder together: all of them take their places, or none does.

Several files cannot change at once. Errors, Ctrl-C and SIGTERM are answered by moving everything back. A kill -9 among
the moves leaves a list of the files that were to move, for which :func:`refuse_incomplete` refuses the folder.
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

# What lies in a folder of this prefix below the one that is changed: a lock that lasts as long as the process, the new
# files, the ones that they replace, and, while they move, their names.
_PREFIX = ".staged-"
_LOCK, _FILES, _KEPT, _MOVING = "lock", "files", "kept", "moving"
_SETTLED = 60  # seconds after which a folder without a lock is nobody's


@contextmanager
def staged(out: Path, force: bool = False, free: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder inside ``out``; when the block ends well its files move to the same names under ``out``.

    When it ends badly (an error, Ctrl-C), everything made on the way is removed, ``out`` itself included if it is new.
    What a killed process left on the way is removed first.

    Args:
        out: the folder to change; it is created if it is missing.
        force: replace files that are there with another content.
        free: names of files that need no ``force``: our own notes about the others.

    Raises:
        UserError: if ``out`` cannot be written, or holds a file that would be replaced and ``force`` is not given.
    """
    created = _make(out)
    for left in out.glob(f"{_PREFIX}*"):
        if not (left / _MOVING).exists():
            _remove_if_nobodys(left)
    try:
        room = out / Path(tempfile.mkdtemp(prefix=_PREFIX, dir=out)).name  # absolute from Python 3.12 on
    except OSError as error:
        _remove(created)
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    lock: TextIO | None = None
    try:
        lock = (room / _LOCK).open("w")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (room / _FILES).mkdir()
        yield room / _FILES
        _commit(room, out, force, free)
        created = []
    finally:
        _clear(room)
        if lock is not None:
            lock.close()
        _remove(created)


def refuse_incomplete(folder: Path) -> None:
    """Check that no process was killed while it replaced files in a folder.

    Raises:
        UserError: one was, and the files have not been written again since.
    """
    for moving in folder.glob(f"{_PREFIX}*/{_MOVING}"):
        first = moving.read_text(encoding="utf-8").partition("\n")[0]
        raise UserError(
            f"{folder} is incomplete: fairseq_skd.manifest was killed while it replaced {first} and others there; run "
            f"the same command again, with --force"
        )


def _remove_if_nobodys(room: Path) -> None:
    with suppress(OSError):
        if not (room / _LOCK).exists():
            if time.time() - room.stat().st_mtime > _SETTLED:
                _clear(room)
            return
        with (room / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(room)


def _clear(room: Path) -> None:
    """Remove it, the lock last: a kill on the way leaves something that is known to be nobody's."""
    for name in (_MOVING, _FILES, _KEPT):
        if (room / name).is_dir():
            shutil.rmtree(room / name, ignore_errors=True)
        else:
            (room / name).unlink(missing_ok=True)
    shutil.rmtree(room, ignore_errors=True)


def _make(folder: Path) -> list[Path]:
    """Create ``folder``; return the folders that were missing, outermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove(missing)
        raise UserError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from error
    return missing


def _remove(folders: list[Path]) -> None:
    """Remove those of ``folders`` that exist and are empty, innermost first."""
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def refuse_conflicts(stage: Path, out: Path, force: bool, free: Collection[str] = ()) -> list[Path]:
    """The files of ``stage``, relative to it, that are not in ``out`` with the same content.

    Raises:
        UserError: if one is there with another content, and neither ``force`` nor ``free`` allows to replace it.
    """
    changed = [name for name in _files(stage) if not _same(stage / name, out / name)]
    present = [name for name in changed if (out / name).exists() and str(name) not in free]
    if present and not force:
        others = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        mend = "replace with --force, or choose another --out"
        raise UserError(f"{out / present[0]}{others} exists and holds something else; {mend}")
    return changed


def _files(stage: Path) -> list[Path]:
    return [path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()]


def _commit(room: Path, out: Path, force: bool, free: Collection[str]) -> None:
    """Move the new files to ``out``; a move that fails takes the earlier ones back."""
    stage, kept, moving = room / _FILES, room / _KEPT, room / _MOVING
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
    for other in out.glob(f"{_PREFIX}*/{_MOVING}"):  # of a process that was killed: are all its files whole again?
        if written.issuperset(other.read_text(encoding="utf-8").splitlines()):
            _remove_if_nobodys(other.parent)


def _same(left: Path, right: Path) -> bool:
    """Whether two files have the same bytes."""
    return right.is_file() and filecmp.cmp(left, right, shallow=False)
