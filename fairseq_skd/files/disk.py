"""Expand paths, read lines of text files, and replace files without losing the old ones."""

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
    """Expand ``~`` and make a path absolute, starting from the current folder."""
    return Path(path).expanduser().absolute()


def file_hash(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the file's name to an ``OSError`` that has none, such as "No space left on device"."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces ``path`` when the block succeeds.

    The temporary file is deleted if the block fails. The folder of ``path`` is created if it is
    missing. The replacement is atomic. A killed process leaves its temporary file behind; the next
    process that writes into the folder removes it.

    Raises:
        UserError: ``path`` is a device or a pipe, or the file cannot be written, for example
            because the disk is full.
    """
    target = Path(path)
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):  # root would replace /dev/null itself
            raise UserError(f"{target} cannot be written: it is a device or a pipe, give the name of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(target.parent.absolute())
        handle, beside = _begin(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp makes 0600, which the user's group could not read
        os.replace(beside, target)
    except Exception as error:
        if reason := _why_not_written(error, beside):
            raise UserError(f"{target} cannot be written: {reason}") from error
        raise
    finally:
        beside.unlink(missing_ok=True)
        os.close(handle)


def _why_not_written(error: Exception, beside: Path) -> str | None:
    """Return why the system cannot write a file; None if the error has another cause."""
    cause: BaseException | None = error
    while not isinstance(cause, OSError | UserError | None):
        cause = cause.__context__  # torch.save hides the OSError behind a RuntimeError
    if not isinstance(cause, OSError):
        return None
    files = [str(file) for file in (cause.filename, cause.filename2) if file is not None]
    return cause.strerror or str(cause) if not files or str(beside) in files else None


def _begin(target: Path) -> tuple[int, Path]:
    """Create a locked file beside ``target``; the lock ends with the handle or the process."""
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=_PART)
        with suppress(OSError):  # without locks, leftovers stay
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # else another process removed it as a leftover
            return handle, Path(name)
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files of killed processes; files that are being written now stay."""
    for leftover in folder.glob(f".*{_PART}"):
        with suppress(OSError), leftover.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


_remove_leftovers_once = functools.lru_cache(maxsize=None)(remove_leftovers)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the stripped text of each line that is not empty.

    Raises:
        UserError: the file cannot be read, or a line is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {number} is not UTF-8; convert the file to UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip():
            yield number, stripped


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file; the last line may lack its newline.

    Raises:
        UserError: the file is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1}): convert it to UTF-8") from error
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_speakers(manifest: Path) -> list[str] | None:
    """Read the speaker of each utterance of ``<split>.tsv`` from ``<split>.spk`` beside it.

    Returns:
        one speaker per utterance; None if there is no ``<split>.spk``.

    Raises:
        UserError: the file does not have one speaker per utterance.
    """
    path = manifest.with_suffix(".spk")
    if not path.is_file():
        return None
    speakers, utterances = read_lines(path), len(read_lines(manifest)) - 1
    fix = "make the manifest again, or delete the file if the speakers are unknown"
    if len(speakers) != utterances:
        raise UserError(f"{path} has {len(speakers)} lines, {manifest} lists {utterances} utterances: {fix}")
    for number, speaker in enumerate(speakers, start=1):
        if not speaker.strip():
            raise UserError(f"{path} line {number} names no speaker: {fix}")
    return speakers
