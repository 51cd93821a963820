"""All files are replaced or none, whatever goes wrong and whenever."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.files.staging import refuse_incomplete, staged


def contents(folder: Path) -> dict[str, str]:
    """Read every file under ``folder``, including hidden files."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(stage: Path, **files: str) -> None:
    """Write files; ``__`` in a name stands for a folder."""
    for name, text in files.items():
        path = stage / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_files_arrive_and_the_staging_folder_disappears(tmp_path: Path):
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


def test_other_content_needs_force(tmp_path: Path):
    fill(tmp_path, one="old", two="2", mine="keep")
    with staged(tmp_path) as stage:
        fill(stage, two="2", three="3")
    with pytest.raises(UserError) as caught, staged(tmp_path) as stage:
        fill(stage, one="new", two="new", four="4")
    assert str(caught.value) == (
        f"{tmp_path / 'one'} (and 1 more) exists with other content; add --force to replace it, or choose another --out"
    )
    assert contents(tmp_path) == {"one": "old", "two": "2", "three": "3", "mine": "keep"}
    with staged(tmp_path, force=True) as stage:
        fill(stage, one="new", four="4")
    assert contents(tmp_path) == {"one": "new", "two": "2", "three": "3", "four": "4", "mine": "keep"}


@pytest.mark.parametrize("failing", range(6))
def test_an_interrupt_between_moves_undoes_them(tmp_path: Path, monkeypatch, failing: int):
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

    monkeypatch.setattr("tempfile.mkdtemp", denied)  # not chmod, since root often runs the tests
    sentence = "cannot be written \\(Permission denied\\); choose another --out"
    with pytest.raises(UserError, match=sentence), staged(tmp_path / "new"):
        pass
    assert list(tmp_path.iterdir()) == []


def visible(folder: Path) -> dict[str, str]:
    return {name: text for name, text in contents(folder).items() if not name.startswith(".")}


def complaint_about(folder: Path) -> str | None:
    try:
        refuse_incomplete(folder)
    except UserError as error:
        return str(error)
    return None


def replace_and_die(out: Path, steps: int) -> bool:
    """Change four files in a process killed after ``steps`` steps; return False if it finished."""
    child = os.fork()
    if not child:
        left = steps

        def dying(operation):
            def run(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*args, **kwargs)

            return run

        with staged(out, force=True) as stage:
            fill(stage, a="new a", audio__c="new c", b="new b", d="new d")
            for name in ("replace", "unlink", "rmdir", "mkdir"):
                setattr(os, name, dying(getattr(os, name)))
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.faults
@pytest.mark.slow
def test_a_kill_between_moves_is_detected(tmp_path: Path):
    """X9: a mix of new and old files was accepted. Now it is old, new, or refused as incomplete."""
    old, new = {"b": "old b", "d": "old d"}, {"a": "new a", "audio/c": "new c", "b": "new b", "d": "new d"}
    seen = []
    for steps in range(100):
        out = tmp_path / str(steps)
        fill(tmp_path, **{f"{steps}__b": "old b", f"{steps}__d": "old d", f"{steps}__mine": "keep"})
        if not replace_and_die(out, steps):
            break
        if (complaint := complaint_about(out)) is not None:
            assert complaint == (
                f"{out} is incomplete: fairseq_skd.manifest was killed while it replaced a and others; run the "
                f"same command again with --force"
            )
            seen.append("incomplete")
            with staged(out) as stage:  # other files do not complete the folder
                fill(stage, other="1")
            assert complaint_about(out) == complaint
            (out / "other").unlink()
        else:
            assert visible(out) in ({**old, "mine": "keep"}, {**new, "mine": "keep"})
            seen.append("old" if visible(out)["b"] == "old b" else "new")
        with staged(out, force=True) as stage:
            fill(stage, a="new a", audio__c="new c", b="new b", d="new d")
        assert complaint_about(out) is None
        assert contents(out) == {**new, "mine": "keep"}, "and nothing is left behind"
    assert seen[0] == "incomplete" and seen.count("incomplete") >= 6 and seen[-1] == "new"
    shutil.rmtree(tmp_path / str(steps))


@pytest.mark.faults
def test_leftovers_of_a_killed_process_are_removed_but_not_a_running_ones(tmp_path: Path):
    """X8: staged files stayed for ever."""
    child = os.fork()
    if not child:
        with staged(tmp_path) as stage:
            fill(stage, one="half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.glob(".staged-*")
    with staged(tmp_path) as stage:
        assert not left.exists()
        with staged(tmp_path) as other:
            fill(other, two="2")
        fill(stage, one="1")
    assert contents(tmp_path) == {"one": "1", "two": "2"}
