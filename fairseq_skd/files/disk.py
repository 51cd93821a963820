"""Paths as users mean them, lines of text files, and writing so that what was there is never lost."""

import fcntl
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairseq_skd.errors import UserError

_PART = ".skd-part"  # ends the name of a file that is being written


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
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give an error of the system inside the block, such as a full disk, the name of the file that is being written."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside ``path``; when the block ends well the file takes ``path``'s place, else it is deleted.

    The folder of ``path`` is created if it is missing. On one file system the exchange is atomic. A process that is
    killed leaves the file beside, which the next process that writes into the folder removes.

    Raises:
        UserError: the file cannot be written, for example because the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(target.parent.absolute())
        handle, beside = _begin(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp makes 0600, which other members of a group could not read
        os.replace(beside, target)
    except Exception as error:
        if reason := _why_not_written(error, beside):
            raise UserError(f"{target} cannot be written: {reason}") from error
        raise
    finally:
        beside.unlink(missing_ok=True)
        os.close(handle)


def _why_not_written(error: Exception, beside: Path) -> str | None:
    """The system's words on a file that cannot be written; None for an error about something else."""
    cause: BaseException | None = error
    while not isinstance(cause, OSError | UserError | None):
        cause = cause.__context__  # torch.save raises RuntimeError over it
    if not isinstance(cause, OSError):
        return None
    files = [str(file) for file in (cause.filename, cause.filename2) if file is not None]
    return cause.strerror or str(cause) if not files or str(beside) in files else None


def _begin(target: Path) -> tuple[int, Path]:
    """A new file beside ``target`` with a lock that lasts as long as the handle, or the process, does."""
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=_PART)
        with suppress(OSError):  # a file system without locks: leftovers stay there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # else another process took it for a leftover before it was locked
            return handle, Path(name)
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; files that are being written now stay."""
    for leftover in folder.glob(f".*{_PART}"):
        with suppress(OSError), leftover.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


_remove_leftovers_once = functools.lru_cache(maxsize=None)(remove_leftovers)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1, line ends left out; empty lines are passed over.

    Raises:
        UserError: if the file cannot be read, or a line is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {number} is not UTF-8; convert the file to UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip():
            yield number, stripped


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, the last one with or without a newline.

    Raises:
        UserError: not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1})") from error
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_speakers(manifest: Path) -> list[str] | None:
    """Speaker of each utterance of ``<split>.tsv``, from ``<split>.spk`` beside it; None without such a file.

    Raises:
        UserError: the file has not one speaker per utterance.
    """
    path = manifest.with_suffix(".spk")
    if not path.is_file():
        return None
    speakers, utterances = read_lines(path), len(read_lines(manifest)) - 1
    mend = "make the manifest again, or delete the file if nobody knows the speakers"
    if len(speakers) != utterances:
        raise UserError(f"{path} has {len(speakers)} lines, {manifest} lists {utterances} utterances: {mend}")
    for number, speaker in enumerate(speakers, start=1):
        if not speaker.strip():
            raise UserError(f"{path} line {number} names no speaker: {mend}")
    return speakers
