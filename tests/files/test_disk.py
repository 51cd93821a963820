"""Files are replaced whole or not at all."""

import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import remove_leftovers, replacing
from tests.limits import file_limit


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_in_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out.txt"
    with replacing(target) as beside:
        assert beside.parent == target.parent
        assert not list(target.parent.glob("*.txt"))  # a search for *.txt never finds half a file
        assert not target.exists()
        beside.write_text("new")
    assert target.read_text() == "new"
    assert names(target.parent) == ["out.txt"]


def test_the_old_file_stays_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with replacing(str(target)) as beside:
        beside.write_text("half")
        assert target.read_text() == "old"
    assert target.read_text() == "half"
    assert names(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: type[BaseException], old: str | None
) -> None:
    target = tmp_path / "out.txt"
    if old is not None:
        target.write_text(old)

    def write() -> None:
        with replacing(target) as beside:
            beside.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert names(tmp_path) == ([] if old is None else ["out.txt"])
    if old is not None:
        assert target.read_text() == old


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "out.txt").mkdir()
    sentence = r"/out\.txt cannot be written: Is a directory$"
    with pytest.raises(UserError, match=sentence), replacing(tmp_path / "out.txt") as beside:
        beside.write_text("new")
    assert names(tmp_path) == ["out.txt"]


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Root could replace even ``/dev/null``."""
    os.mkfifo(tmp_path / "pipe")
    sentence = "/pipe cannot be written: it is a device or a pipe, give the name of a file$"
    with pytest.raises(UserError, match=sentence), replacing(tmp_path / "pipe"):
        pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_permissions_equal_an_ordinary_files(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "out.bin") as beside:
        beside.write_bytes(b"x")
    (tmp_path / "plain.bin").write_bytes(b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out.bin", "plain.bin")}
    assert modes == {0o666 & ~umask}


def test_two_writers_do_not_interfere(tmp_path: Path) -> None:
    with replacing(tmp_path / "out.txt") as first, replacing(tmp_path / "out.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "out.txt").read_text() == "first"
    assert names(tmp_path) == ["out.txt"]


def save_tensors(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weights": torch.zeros(10_000)}, file)


@pytest.mark.faults
@pytest.mark.parametrize("write", [lambda path: path.write_bytes(b"x" * 1001), save_tensors])
def test_a_full_disk_names_the_file(tmp_path: Path, write: Callable[[Path], object]) -> None:
    """X9: the system does not name the file, and torch does not say that the disk is full."""
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(UserError) as caught, file_limit(), replacing(target) as beside:
        write(beside)
    assert str(caught.value) == f"{target} cannot be written: {os.strerror(errno.EFBIG)}"
    assert names(tmp_path) == ["out.txt"]
    assert target.read_text() == "old"


def test_other_errors_in_the_block_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "out.txt"):
        (tmp_path / "elsewhere").read_text()


@pytest.mark.faults
def test_leftovers_of_a_kill_are_removed_but_not_files_being_written(tmp_path: Path) -> None:
    """X3, X8: kill -9 in the middle of a file."""
    child = os.fork()
    if not child:
        with replacing(tmp_path / "killed.txt") as beside:
            beside.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / ".mine.part").touch()
    (leftover,) = tmp_path.glob(".killed*")
    with replacing(tmp_path / "other.txt") as beside:
        assert not leftover.exists()
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([".mine.part", beside.name])
    assert names(tmp_path) == [".mine.part", "other.txt"]
