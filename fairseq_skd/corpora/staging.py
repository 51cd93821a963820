"""Changing several files of a folder together: all of them take their places, or none does."""

import filecmp
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairseq_skd.errors import UserError


@contextmanager
def staged(out: Path, force: bool = False, free: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder inside ``out``; when the block ends well its files move to the same names under ``out``.

    When it ends badly (an error, Ctrl-C), everything made on the way is removed, ``out`` itself included if it is new.

    Args:
        out: the folder to change; it is created if it is missing.
        force: replace files that are there with another content.
        free: names of files that need no ``force``: our own notes about the others.

    Raises:
        UserError: if ``out`` cannot be written, or holds a file that would be replaced and ``force`` is not given.
    """
    created = _make(out)
    try:
        stage = Path(tempfile.mkdtemp(prefix=".staged-", dir=out))
    except OSError as error:
        _remove(created)
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        yield stage
        _commit(stage, out, force, free)
        created = []
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _remove(created)


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
    files = [path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()]
    changed = [name for name in files if not _same(stage / name, out / name)]
    present = [name for name in changed if (out / name).exists() and str(name) not in free]
    if present and not force:
        others = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        mend = "replace with --force, or choose another --out"
        raise UserError(f"{out / present[0]}{others} exists and holds something else; {mend}")
    return changed


def _commit(stage: Path, out: Path, force: bool, free: Collection[str]) -> None:
    """Move the files of ``stage`` to ``out``; a move that fails takes the earlier ones back."""
    changed = refuse_conflicts(stage, out, force, free)
    kept = Path(tempfile.mkdtemp(prefix=".kept-", dir=stage))
    moved: list[Path] = []
    created: list[Path] = []
    try:
        for name in changed:
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
        raise


def _same(left: Path, right: Path) -> bool:
    """Whether two files have the same bytes."""
    return right.is_file() and filecmp.cmp(left, right, shallow=False)
