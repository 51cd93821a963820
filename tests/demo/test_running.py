import shlex
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from fairseq_skd.demo.plan import Step
from fairseq_skd.demo.running import follow_training, is_done, prepare_folder, run_step, run_steps
from fairseq_skd.errors import UserError

APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); print('wrote', sys.argv[2])"


def writing(out, name, text="x", script=APPEND, updates=0):
    """A step that appends ``text`` to ``out/name``: its length tells how often the step ran since it was forgotten."""
    return Step(name, f"Write {name}", (sys.executable, "-c", script, str(out / name), text), out / name, updates)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    prepare_folder(folder, [], fresh=False)
    return folder


def test_steps_run_in_order_and_print_their_commands(out, capsys):
    steps = [writing(out, "first"), writing(out, "second")]
    run_steps(steps, out)
    printed = capsys.readouterr().out
    assert printed.index(steps[0].shown()) < printed.index(steps[1].shown())
    assert "[1/2] Write first" in printed
    assert shlex.split(steps[0].shown())[0] == "python"
    assert (out / "logs" / "first.log").read_text() == "wrote x\n"


def test_steps_that_are_done_are_skipped(out, capsys):
    steps = [writing(out, "first"), writing(out, "second")]
    run_steps(steps, out)
    times = [step.output.stat().st_mtime_ns for step in steps]
    capsys.readouterr()
    run_steps(steps, out)
    assert [step.output.stat().st_mtime_ns for step in steps] == times
    printed = capsys.readouterr().out
    assert printed.count("done before, skipped") == 2
    assert steps[1].shown() in printed


def test_a_changed_command_runs_again_and_so_does_what_follows(out):
    before, changed, after = writing(out, "before"), writing(out, "changed"), writing(out, "after")
    run_steps([before, changed, after], out)
    time = before.output.stat().st_mtime_ns
    (out / "after").write_text("stale")
    run_steps([before, writing(out, "changed", "y"), after], out)
    assert before.output.stat().st_mtime_ns == time
    assert [(out / name).read_text() for name in ("before", "changed", "after")] == ["x", "y", "x"]


def test_a_step_whose_output_was_deleted_runs_again(out):
    step = writing(out, "first")
    run_steps([step], out)
    step.output.unlink()
    assert not is_done(step, out)
    run_steps([step], out)
    assert step.output.read_text() == "x"


def test_fresh_deletes_what_the_steps_wrote_and_nothing_else(out):
    steps = [writing(out, "first")]
    run_steps(steps, out)
    (out / "mine.txt").write_text("keep")
    prepare_folder(out, steps, fresh=True)
    assert not steps[0].output.exists()
    assert not is_done(steps[0], out)
    assert (out / "mine.txt").read_text() == "keep"


def test_failure_names_step_and_log_and_leaves_the_step_undone(out):
    failing = writing(out, "broken", script=APPEND + "; sys.exit('no luck')")
    with pytest.raises(UserError, match=r"step broken failed \(status 1\); what it said is in .*logs/broken\.log"):
        run_steps([failing, writing(out, "later")], out)
    assert "no luck" in (out / "logs" / "broken.log").read_text()
    assert not is_done(failing, out)
    assert not (out / "later").exists()
    run_steps([writing(out, "broken")], out)
    assert (out / "broken").read_text() == "x"  # the half-done output was deleted before


def test_output_of_a_training_run_stays_in_its_log(out, capfd):
    run_step(
        writing(out, "train", script="print('chatter'); print('[x] {\"num_updates\": \"5\"}')", updates=10), out / "log"
    )
    captured = capfd.readouterr()
    assert "chatter" not in captured.out + captured.err
    assert "5/10" in captured.err
    assert (out / "log").read_text() == 'chatter\n[x] {"num_updates": "5"}\n'


def test_output_of_other_steps_is_on_the_terminal_too(out, capfd):
    run_step(writing(out, "chat", script="import sys; sys.stderr.write('50 %\\r'); print('done', end='')"), out / "log")
    error = capfd.readouterr().err
    assert "50 %" in error
    assert "done" in error


def test_bar_follows_fairseqs_log():
    lines = [
        b'[2024-01-01][train_inner][INFO] - {"epoch": 1, "loss": "7.5", "num_updates": "20", "lr": "0.001"}',
        b"[2024-01-01][fairseq.trainer][INFO] - {not json}",
        b"\xff { 3 }",
        b'[2024-01-01][valid][INFO] - {"valid_loss": "3", "valid_wer": "9.5", "valid_student_wer": "12"}',
    ]
    with tqdm(total=100, disable=False) as bar:
        follow_training(lines[0] + b"\n", bar)
        assert (bar.n, bar.postfix) == (20, "loss 7.5")
        follow_training(b"\n".join(lines[1:]), bar)
        assert (bar.n, bar.postfix) == (20, "valid loss 3, valid WER 9.5, student WER 12")


def test_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds files that are not the demo's: give a new folder"):
        prepare_folder(tmp_path, [], fresh=True)


def test_out_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file, it has to be a folder"):
        prepare_folder(tmp_path / "out", [], fresh=False)


def test_out_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*file/out cannot be made: Not a directory"):
        prepare_folder(tmp_path / "file" / "out", [], fresh=False)


def test_out_that_is_read_only(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match=r"--out .* is not writable: choose another folder"):
        prepare_folder(tmp_path / "out", [], fresh=False)


@pytest.mark.parametrize(("cores", "asked", "threads"), [(64, None, "2"), (1, None, "1"), (64, "16", "16")])
def test_few_threads_unless_asked_for_more(out, monkeypatch, cores, asked, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    run_step(writing(out, "threads", script="import os; print(os.environ['OMP_NUM_THREADS'])"), out / "log")
    assert (out / "log").read_text() == f"{threads}\n"


def test_package_is_found_where_it_is_not_installed(out, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    run_step(writing(out, "path", script="import sys; print(*sys.path, sep='\\n')"), out / "log")
    paths = (out / "log").read_text().splitlines()
    assert str(Path(__file__).resolve().parents[2]) in paths
    assert "/somewhere/else" in paths
