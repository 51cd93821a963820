"""How a command ends."""

import pytest

from fairseq_skd.errors import UserError, run_command


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


def test_an_interruption_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    assert run_command("tool", main) == 130
    assert capsys.readouterr() == ("", "tool: interrupted\n")


def test_a_bug_of_ours_keeps_its_traceback() -> None:
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
