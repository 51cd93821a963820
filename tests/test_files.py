"""Files are replaced whole or not at all."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairseq_skd.files import replacing


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
        assert beside.suffix == ".txt"  # libraries that go by the suffix write the right format
        assert not target.exists()
        beside.write_text("new")
    assert target.read_text() == "new"
    assert names(target.parent) == ["out.txt"]


def test_the_old_file_stands_until_the_end(tmp_path: Path) -> None:
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
    with pytest.raises(OSError, match=r"out\.txt"), replacing(tmp_path / "out.txt") as beside:
        beside.write_text("new")
    assert names(tmp_path) == ["out.txt"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "out.bin") as beside:
        beside.write_bytes(b"x")
    (tmp_path / "plain.bin").write_bytes(b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out.bin", "plain.bin")}
    assert modes == {0o666 & ~umask}


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "out.txt") as first, replacing(tmp_path / "out.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "out.txt").read_text() == "first"
    assert names(tmp_path) == ["out.txt"]
