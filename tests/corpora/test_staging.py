"""All files take their places or none does, whatever goes wrong and whenever."""

import os
from pathlib import Path

import pytest

from fairseq_skd.corpora.staging import staged
from fairseq_skd.errors import UserError


def contents(folder: Path) -> dict[str, str]:
    """Every file under ``folder``, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(stage: Path, **files: str) -> None:
    """Write files; ``__`` in a name stands for a folder."""
    for name, text in files.items():
        path = stage / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_files_arrive_and_the_stage_vanishes(tmp_path: Path):
    out = tmp_path / "a" / "b"
    with staged(out) as stage:
        fill(stage, one="1", audio__two="2")
    assert contents(tmp_path) == {"a/b/one": "1", "a/b/audio/two": "2"}
    assert sorted(path.name for path in out.iterdir()) == ["audio", "one"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_no_trace(tmp_path: Path, error: type[BaseException]):
    with pytest.raises(error), staged(tmp_path / "a" / "b") as stage:  # noqa: PT012 (the block is what is tested)
        fill(stage, one="1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_same_content_is_fine_and_another_needs_force(tmp_path: Path):
    fill(tmp_path, one="old", two="2", mine="keep")
    with staged(tmp_path) as stage:
        fill(stage, two="2", three="3")
    with pytest.raises(UserError) as caught, staged(tmp_path) as stage:
        fill(stage, one="new", two="new", four="4")
    assert str(caught.value) == (
        f"{tmp_path / 'one'} (and 1 more) exists and holds something else; "
        "replace with --force, or choose another --out"
    )
    assert contents(tmp_path) == {"one": "old", "two": "2", "three": "3", "mine": "keep"}
    with staged(tmp_path, force=True) as stage:
        fill(stage, one="new", four="4")
    assert contents(tmp_path) == {"one": "new", "two": "2", "three": "3", "four": "4", "mine": "keep"}


@pytest.mark.parametrize("failing", range(6))
def test_an_interrupt_among_the_moves_takes_them_all_back(tmp_path: Path, monkeypatch, failing: int):
    out = tmp_path / "out"
    fill(tmp_path, out__b="old b", out__d="old d")
    calls = 0
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise KeyboardInterrupt
        replace(source, target)

    with pytest.raises(KeyboardInterrupt), staged(out, force=True) as stage:  # noqa: PT012 (likewise)
        fill(stage, a="1", audio__c="2", b="3", d="4")  # six moves: b and d are first set aside
        monkeypatch.setattr(os, "replace", interrupted)
    assert contents(out) == {"b": "old b", "d": "old d"}
    assert sorted(path.name for path in out.iterdir()) == ["b", "d"]


def test_out_that_is_a_file(tmp_path: Path):
    (tmp_path / "out").touch()
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(UserError, match="choose another --out"), staged(out):
            pass
    assert contents(tmp_path) == {"out": ""}


def test_out_without_permission(tmp_path: Path, monkeypatch):
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", denied)  # chmod would not do: tests are often run by root
    sentence = "cannot be written \\(Permission denied\\); choose another --out"
    with pytest.raises(UserError, match=sentence), staged(tmp_path / "new"):
        pass
    assert list(tmp_path.iterdir()) == []
