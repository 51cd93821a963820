"""Paths as users mean them, and writing so that what was there is never lost: write beside, then rename."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def absolute(path: str) -> Path:
    """A path as the user means it: ``~`` is the home folder, the rest is relative to the current folder."""
    return Path(path).expanduser().absolute()


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside ``path``; when the block ends well the file takes ``path``'s place, else it is deleted.

    The folder of ``path`` is created if it is missing. On one file system the exchange is atomic.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp makes 0600, which other members of a group could not read
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
