"""The folder of a run: its lock, and what it was begun with: command, data, encoder."""

import fcntl
import functools
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.grid import Run, shown
from fairseq_skd.errors import UserError
from fairseq_skd.files import file_hash, replacing

_COMMAND = "command.txt"
_DATA = "data.sha256"
_ENCODER = "encoder.sha256"
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


def foreign(run: Run) -> str | None:
    """What its folder was begun with otherwise: ``of another command``, ``of other data``, ``from another encoder``."""
    if _noted(run, _COMMAND) not in (None, shown(run.train)):
        return "of another command"
    if _noted(run, _DATA) not in (None, data_hash(run.data.training_files())):
        return "of other data"
    if _noted(run, _ENCODER) not in (None, encoder_hash(run.encoder)):
        return "from another encoder"
    return None


def check_folder(run: Run) -> None:
    """Refuse a folder that was begun with another command, other data or another encoder: the two would be mixed.

    Raises:
        UserError: it was.
    """
    what = foreign(run)
    if what == "of another command":
        raise UserError(f"{run.folder} holds a run of another command ({run.folder / _COMMAND}): {_MEND}")
    if what == "of other data":
        files = ", ".join(map(str, run.data.training_files()))
        raise UserError(f"{run.folder} was begun with other data, one of these was changed since: {files}; {_MEND}")
    if what is not None:
        raise UserError(f"{run.folder} was begun with another encoder, {run.encoder} was changed since; {_MEND}")


def claim(run: Run) -> None:
    """Remember command, data and encoder.

    Raises:
        UserError: the folder was begun with others.
    """
    check_folder(run)
    begun_with = {
        _COMMAND: shown(run.train),
        _DATA: data_hash(run.data.training_files()),
        _ENCODER: encoder_hash(run.encoder),
    }
    for name, content in begun_with.items():
        with replacing(run.folder / name) as beside:
            beside.write_text(content + "\n", encoding="utf-8")


def _noted(run: Run, name: str) -> str | None:
    note = run.folder / name
    return note.read_text(encoding="utf-8").rstrip("\n") if note.is_file() else None


def begun(run: Run) -> bool:
    """Whether its folder was claimed."""
    return (run.folder / _COMMAND).is_file()


def began_with(run: Run) -> dict[str, str]:
    """The hashes of its data and its encoder, as they were noted."""
    return {"data_sha256": _noted(run, _DATA) or "", "encoder_sha256": _noted(run, _ENCODER) or ""}


def data_hash(files: Iterable[Path]) -> str:
    """SHA-256 over files by name, manifests without their root line; a file that is not there counts as empty."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        digest.update(file.name.encode() + b"\0")
        digest.update(content.partition(b"\n")[2] if file.suffix == ".tsv" else content)
    return digest.hexdigest()


def encoder_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder over its files by name; of nothing if there is none."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        listed = "".join(f"{_known_hash(file)} {file.name}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    return _known_hash(path) if path.is_file() else hashlib.sha256().hexdigest()


def _known_hash(file: Path) -> str:
    """All runs of a grid have the same encoder, which may be of gigabytes."""
    status = file.stat()
    return _hash_of_version(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache
def _hash_of_version(file: Path, size: int, changed: int) -> str:
    return file_hash(file)
