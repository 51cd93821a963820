"""Allow one training per ``checkpoint.save_dir``; two would overwrite each other's checkpoints."""

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
# The lock file of this process's training. It stays open: closing any handle of it frees the lock.
_held: TextIO | None = None


def hold(save_dir: str) -> None:
    """Lock a folder until this process ends or trains into another folder.

    The operating system frees the lock when the process ends, also after ``kill -9``. It is
    ``lockf`` and not ``flock``: a loader worker that outlives the training does not inherit it.
    Half-written files of killed trainings are removed, since no other process writes there.

    Args:
        save_dir: the folder; it is created if missing.

    Raises:
        UserError: another process trains into the folder, or it cannot be written.
    """
    global _held
    folder = Path(save_dir).absolute()
    if _held is not None and _same_file(_held, folder / LOCK):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"checkpoint.save_dir={save_dir} cannot be written ({error.strerror}): give another folder"
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            holder = _holder(file)
            file.close()
            raise UserError(
                f"checkpoint.save_dir={save_dir} is in use by another training ({holder}): wait until it ends, or give "
                f"another checkpoint.save_dir"
            ) from error
        logger.warning(
            "checkpoint.save_dir=%s is on a file system without locks (%s): do not start a second training there, it "
            "would overwrite these checkpoints",
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
    """Name the process that holds the lock; it may not have written its name yet."""
    file.seek(0)
    return file.readline().strip() or "process not known yet"
