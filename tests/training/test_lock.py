"""One training per checkpoint.save_dir."""

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
    """Hold a folder in a process of its own, which has a worker of its own; both live until the test ends."""
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


def test_the_second_training_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path, elsewhere) -> None:
    """X5: both ended well, and the checkpoints of one were lost. A kill -9 frees the folder, whatever outlives it."""
    holder = elsewhere(tmp_path)
    with pytest.raises(UserError) as caught:
        lock.hold(str(tmp_path))
    assert str(caught.value) == (
        f"checkpoint.save_dir={tmp_path} belongs to a training that runs (host {socket.gethostname()}, process "
        f"{holder}): wait for its end, or give another checkpoint.save_dir"
    )
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    lock.hold(str(tmp_path))
    assert (tmp_path / lock.LOCK).read_text() == f"host {socket.gethostname()}, process {os.getpid()}\n"


def test_a_process_may_train_again_and_frees_the_folder_that_it_leaves(tmp_path: Path, elsewhere) -> None:
    """Hydra's --multirun trains several times in one process."""
    lock.hold(str(tmp_path / "a"))
    lock.hold(str(tmp_path / "a"))
    lock.hold(os.path.relpath(tmp_path / "a"))
    elsewhere(tmp_path / "b")
    with pytest.raises(UserError, match="belongs to a training that runs"):
        lock.hold(str(tmp_path / "b"))
    assert _is_held(tmp_path / "a"), "a refused start frees nothing"
    lock.hold(str(tmp_path / "c"))
    assert not _is_held(tmp_path / "a") and _is_held(tmp_path / "c")


def _is_held(folder: Path) -> bool:
    """Asked by another process: this one may lock what it has locked."""
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
    with pytest.raises(UserError, match=r"^checkpoint.save_dir=.*/file/run cannot be written: Not a directory$"):
        lock.hold(str(tmp_path / "file" / "run"))


def test_what_a_killed_training_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint_1_5.pt.abcdefgh.skd-part").touch()
    (tmp_path / "checkpoint_last.pt").touch()
    lock.hold(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [lock.LOCK, "checkpoint_last.pt"]
