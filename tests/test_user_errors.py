"""Exit status and last line of a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fairseq_skd
from fairseq_skd.errors import UserError, end_hydra_with_a_sentence, run_command


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    called = []
    assert run_command("tool", lambda: called.append(1)) == 0
    assert called == [1]
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("table.tsv, line 3: the column text is empty, fill it in")

    assert run_command("tool", main) == 2
    assert capsys.readouterr() == ("", "tool: table.tsv, line 3: the column text is empty, fill it in\n")


def test_an_interruption_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    assert run_command("tool", main) == 130
    assert capsys.readouterr() == ("", "tool: interrupted\n")


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command("tool", main)


def test_a_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)


def test_an_error_of_the_system_is_one_line(tmp_path, capsys):
    def main() -> None:
        (tmp_path / "missing" / "file").write_text("x")

    assert run_command("tool", main) == 2
    assert capsys.readouterr().err.startswith("tool: [Errno 2] No such file or directory")


# ---- fairseq-hydra-train

# A Hydra program that fails as argv says. It imports only errors.py: the user dir takes seconds.
PROGRAM = """
import hydra

class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("audio file a.flac cannot be used: it is empty")

@hydra.main(config_path=None)
def main(cfg):
    global UserError
    from errors import UserError, end_hydra_with_a_sentence
    end_hydra_with_a_sentence()
    try:
        if cfg.kind == "worker":
            from torch.utils.data import DataLoader
            list(DataLoader(Broken(), num_workers=1))
        if cfg.kind in ("mistake", "hidden"):
            raise UserError("model.student_layers=[9]: there is no student of 9 layers")
        raise KeyError("a bug")
    except UserError:
        if cfg.kind == "hidden":  # as fairseq's trainer does
            raise Exception("please ensure that the architectures match.")
        raise

main()
"""


@pytest.fixture
def failing(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")

    def run(kind: str, **environment: str) -> list[str]:
        kept = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
        done = subprocess.run(
            [sys.executable, "program.py", f"+kind={kind}", f"hydra.run.dir={tmp_path}"],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": str(Path(fairseq_skd.__file__).parent), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 1
        return done.stdout.rstrip().splitlines()

    return run


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["mistake", "hidden", "worker"])
@pytest.mark.slow
def test_a_mistake_ends_hydra_with_one_sentence(failing, kind):
    lines = failing(kind)
    sentence = {"worker": "audio file a.flac cannot be used: it is empty"}.get(
        kind, "model.student_layers=[9]: there is no student of 9 layers"
    )
    assert lines[-1] == f"fairseq-hydra-train: {sentence}"
    assert not any("Traceback" in line for line in lines)


@pytest.mark.faults
@pytest.mark.slow
def test_a_bug_keeps_its_traceback_in_hydra(failing):
    lines = failing("bug")
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "KeyError: 'a bug'"


@pytest.mark.faults
@pytest.mark.slow
def test_hydra_full_error_keeps_the_traceback(failing):
    lines = failing("mistake", HYDRA_FULL_ERROR="1")
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "errors.UserError: model.student_layers=[9]: there is no student of 9 layers"


@pytest.mark.slow
def test_hydra_full_error_of_0_means_no_traceback(failing):
    assert failing("mistake", HYDRA_FULL_ERROR="0")[-1].startswith("fairseq-hydra-train: model.student_layers=[9]")


def test_a_program_outside_hydra_is_unchanged(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    hook = sys.excepthook
    end_hydra_with_a_sentence()
    assert sys.excepthook is hook and "HYDRA_FULL_ERROR" not in os.environ


def test_a_reader_that_goes_ends_the_command_quietly():
    code = (
        "import sys; from fairseq_skd.errors import run_command; "
        "sys.exit(run_command('tool', lambda: print('line\\n' * int(sys.argv[1]))))"
    )
    for lines in (1, 100_000):  # written at the end, and in between
        with subprocess.Popen(
            [sys.executable, "-c", code, str(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141
