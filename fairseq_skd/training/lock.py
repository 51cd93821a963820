"""One training per ``checkpoint.save_dir``: two would write over each other's checkpoints, and both would end well."""

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import TextIO

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import remove_leftovers

logger = logging.getLogger(__name__)

LOCK = ".training.lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
# Of the training that this process runs. Open until the next one: closing any handle of the file would free the lock.
_held: TextIO | None = None


def hold(save_dir: str) -> None:
    """Hold the lock of a folder for the rest of this process, or until the process trains into another folder.

    The lock is the system's. It is free as soon as the process has ended, by ``kill -9`` as well. It is ``lockf`` and
    not ``flock``: a loader worker that outlives the training inherits no such lock. Whoever holds it can write into the
    folder alone, so what killed trainings left half-written there is removed.

    Args:
        save_dir: the folder; it is made if it is missing.

    Raises:
        UserError: another process trains into the folder, or the folder cannot be written.
    """
    global _held
    folder = Path(save_dir).absolute()
    if _held is not None and _same_file(_held, folder / LOCK):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"checkpoint.save_dir={save_dir} cannot be written: {error.strerror}") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            holder = _holder(file)
            file.close()
            raise UserError(
                f"checkpoint.save_dir={save_dir} belongs to a training that runs ({holder}): wait for its end, or give "
                f"another checkpoint.save_dir"
            ) from error
        logger.warning(
            "checkpoint.save_dir=%s is on a file system without locks (%s): see to it yourself that no second training "
            "is started there, it would write over these checkpoints",
            save_dir,
            error.strerror,
        )
    if _held is not None:
        _held.close()
    _held = file
    file.truncate(0)
    file.write(f"host {socket.gethostname()}, process {os.getpid()}\n")
    file.flush()
    remove_leftovers(folder)


def _same_file(held: TextIO, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(held.fileno()), path.stat())


def _holder(file: TextIO) -> str:
    """What the holder wrote; it may not have come to that yet."""
    file.seek(0)
    return file.readline().strip() or "its process is not known yet"
