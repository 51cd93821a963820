"""The lock: one training per checkpoint.save_dir."""

import errno
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.training import lock

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def free() -> Iterator[None]:
    yield
    if lock._held is not None:
        lock._held.close()
        lock._held = None


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Path], int]]:
    """Lock a folder in another process that has a worker; both live until the test ends."""
    processes: list[int] = []

    def hold(folder: Path) -> int:
        read, write = os.pipe()
        holder = os.fork()
        if not holder:
            lock.hold(str(folder))
            worker = os.fork()
            if worker:
                os.write(write, f"{worker} ".encode())
            time.sleep(60)
            os._exit(0)
        processes.extend((holder, int(os.read(read, 100))))
        return holder

    yield hold
    for process in processes:
        os.kill(process, signal.SIGKILL)


def test_a_second_training_is_refused_until_the_first_is_killed(tmp_path: Path, elsewhere) -> None:
    """X5: both ended with status 0, and one lost its checkpoints.

    A kill -9 frees the folder even if workers survive.
    """
    holder = elsewhere(tmp_path)
    with pytest.raises(UserError) as caught:
        lock.hold(str(tmp_path))
    assert str(caught.value) == (
        f"checkpoint.save_dir={tmp_path} is in use by another training (host {socket.gethostname()}, process "
        f"{holder}): wait until it ends, or give another checkpoint.save_dir"
    )
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    lock.hold(str(tmp_path))
    assert (tmp_path / lock.LOCK).read_text() == f"host {socket.gethostname()}, process {os.getpid()}\n"


def test_a_process_may_train_again_and_frees_its_earlier_folder(tmp_path: Path, elsewhere) -> None:
    """Hydra's --multirun trains several times in one process."""
    lock.hold(str(tmp_path / "a"))
    lock.hold(str(tmp_path / "a"))
    lock.hold(os.path.relpath(tmp_path / "a"))
    elsewhere(tmp_path / "b")
    with pytest.raises(UserError, match="is in use by another training"):
        lock.hold(str(tmp_path / "b"))
    assert _is_held(tmp_path / "a"), "a refused start frees nothing"
    lock.hold(str(tmp_path / "c"))
    assert not _is_held(tmp_path / "a") and _is_held(tmp_path / "c")


def _is_held(folder: Path) -> bool:
    """Try to lock in another process; this process could lock its own file again."""
    child = os.fork()
    if not child:
        with (folder / lock.LOCK).open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_gets_a_warning(tmp_path: Path, monkeypatch, caplog, number: int) -> None:
    def lockf(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    lock.hold(str(tmp_path))
    assert f"checkpoint.save_dir={tmp_path} is on a file system without locks ({os.strerror(number)})" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"^checkpoint.save_dir=.*/file/run cannot be written \(Not a directory\): give"
    ):
        lock.hold(str(tmp_path / "file" / "run"))


def test_half_written_files_of_a_killed_training_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint_1_5.pt.abcdefgh.skd-part").touch()
    (tmp_path / "checkpoint_last.pt").touch()
    lock.hold(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [lock.LOCK, "checkpoint_last.pt"]
