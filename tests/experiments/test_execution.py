"""Runs of a grid, one and several at a time, with commands that train nothing."""

import fcntl
import json
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from experiments import execution, folder, processes
from experiments.folder import data_hash, locked, state
from experiments.grid import REPOSITORY
from fairseq_skd.errors import UserError
from tests.experiments.grids import DECODE, JOB, TRAIN, decoding, noted, other_decoding, stubbed


@pytest.mark.slow
def test_results_are_collected_and_nothing_runs_twice(grid, tmp_path, data):
    runs = stubbed(grid, tmp_path, data)
    assert execution.run_all(runs, tmp_path) == []
    assert execution.run_all(runs, tmp_path) == []
    assert {(run.folder / "tries").read_text() for run in runs} == {"1"}
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {(line["arm"], line["seed"]) for line in lines} == {(run.arm, run.seed) for run in runs}
    skd = next(line for line in lines if line["arm"] == "skd")
    assert [(score["subset"], score["exit"], score["wer"]) for score in skd["scores"]] == [
        ("valid", 4, 4),
        ("valid", 2, 2),
        ("test", 4, 4),
        ("test", 2, 2),
    ]
    (alignment,) = skd["alignment"]
    assert (alignment["exit"], alignment["teacher"], alignment["spike_miss"]["value"]) == (2, "skd", 0.25)
    assert next(line for line in lines if line["arm"] == "kd")["alignment"][0]["teacher"] == "ctc"
    assert skd["updates"] == 30 and skd["seconds"] > 0
    assert skd["data_sha256"] == data_hash(runs[0].data.training_files()) and len(skd["data_sha256"]) == 64


def test_what_was_added_to_a_grid_is_done_without_training(grid, tmp_path, data, capsys):
    (run,) = stubbed(grid, tmp_path, data, ["skd"], [1])
    execution.run_all([run], tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert f"log: {run.folder / 'train.log'}" in said
    assert [line.partition(": ")[2] for line in said if line.startswith("tiny skd seed 1: ")] == [
        *(f"decode-{subset}-layer{layer}" for subset in ("valid", "test") for layer in (4, 2)),
        "align-layer2",
        "1 of 1 runs are done",
    ]
    before = (run.folder / "decode" / "test-layer2" / "summary.json").stat().st_mtime_ns
    (more,) = stubbed(replace(grid, subsets=("test", "more")), tmp_path, data, ["skd"], [1])
    execution.run_all([more], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [(score["subset"], score["exit"]) for score in scores] == [
        ("test", 4),
        ("test", 2),
        ("more", 4),
        ("more", 2),
    ]
    assert (run.folder / "tries").read_text() == "1"
    assert (run.folder / "decode" / "test-layer2" / "summary.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_no_two_jobs_in_one_folder(grid, tmp_path, data, capsys):
    runs = stubbed(grid, tmp_path, data, seeds=[1])
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        left = execution.run_all(runs, tmp_path)
    assert [run.arm for run in left] == ["ctc", "kd"]  # kd waits for its teacher
    assert "tiny ctc seed 1: another job has it" in capsys.readouterr().out
    assert not (runs[0].folder / "tries").exists()
    assert execution.run_all(runs, tmp_path) == []


def test_a_training_that_is_done_is_not_begun_again(grid, tmp_path, data):
    """fairseq takes one more update of a complete training."""
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    broken = other_decoding(run, "valid", 4, (sys.executable, "-c", "exit(3)"))
    with pytest.raises(
        UserError, match=r"a command failed with status 3, see its output in .*decode-valid-layer4\.log"
    ):
        execution.run_all([broken], tmp_path)
    assert execution.run_all([run], tmp_path) == []
    assert (run.folder / "tries").read_text() == "1"


def test_a_decoding_with_other_settings_is_made_again(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["skd"], [1])
    execution.run_all([run], tmp_path)
    changed = other_decoding(run, "test", 2, (*decoding(run, "test", 2).command[:-1], "7"))
    others = (run.folder / "decode" / "test-layer4" / "summary.json").stat().st_mtime_ns
    execution.run_all([changed], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [score["wer"] for score in scores] == [4, 2, 4, 7]
    assert (run.folder / "tries").read_text() == "1"
    assert (run.folder / "decode" / "test-layer4" / "summary.json").stat().st_mtime_ns == others


def test_a_training_that_saved_nothing(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    with pytest.raises(
        UserError, match="ctc seed 1: the training ended without .*checkpoint_best.pt: raise optimization.max_epoch"
    ):
        execution.run_all([replace(run, train=(sys.executable, "-c", ""))], tmp_path)
    assert state(run).startswith("its folder holds a run of another command")


def test_a_subset_that_was_changed_is_decoded_again(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["skd"], [1])
    execution.run_all([run], tmp_path)
    files = [run.folder / "decode" / f"{subset}-layer4" / "summary.json" for subset in ("valid", "test")]
    before = [file.stat().st_mtime_ns for file in files]
    (data / "test.ltr").write_text("A |\n")
    (data / "more.tsv").write_text("/somewhere\n")
    assert state(run) == "trained, not yet decoded and compared"
    execution.run_all([run], tmp_path)
    after = [file.stat().st_mtime_ns for file in files]
    assert before[0] == after[0] and before[1] < after[1]
    assert (run.folder / "tries").read_text() == "1" and state(run) == "done"


@pytest.mark.faults
def test_a_decoding_without_some_files_is_not_done(grid, tmp_path, data):
    """F29: infer ends with status 3, run_grid stops: arms must not differ in utterances."""
    (run,) = stubbed(grid, tmp_path, data, ["skd"], [1])
    whole = decoding(run, "test", 2).command
    partial = other_decoding(run, "test", 2, (*whole[:2], DECODE + "sys.exit(3)", *whole[3:]))
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"a command failed with status 3, see its output in .*decode-test-layer2.log"
        ):
            execution.run_all([partial], tmp_path)
        assert (run.folder / "decode" / "test-layer2" / "summary.json").is_file()
        assert state(partial) == "trained, not yet decoded and compared"
        assert not (run.folder / "result.json").exists()


def test_a_decoding_that_was_deleted_or_cut_off_is_made_again(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["skd"], [1])
    execution.run_all([run], tmp_path)
    summary = run.folder / "decode" / "test-layer2" / "summary.json"
    summary.unlink()
    assert state(run) == "trained, not yet decoded and compared"
    execution.run_all([run], tmp_path)
    assert summary.is_file() and state(run) == "done"
    cut_off = other_decoding(run, "test", 2, (sys.executable, "-c", "exit(3)"))
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([cut_off], tmp_path)
    assert summary.is_file() and state(run) == "trained, not yet decoded and compared"  # with the earlier settings, too


def test_a_result_without_what_was_added_does_not_pass_for_the_whole(grid, tmp_path, data):
    """As if run_grid was killed during the last decoding, which outlives it."""
    (run,) = stubbed(replace(grid, subsets=("test",)), tmp_path, data, ["ctc"], [1])
    execution.run_all([run], tmp_path)
    (more,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    broken = other_decoding(more, "valid", 4, (sys.executable, "-c", "exit(3)"))
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([broken], tmp_path)
    assert not (run.folder / "result.json").exists()
    execution.run_all([more], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [score["subset"] for score in scores] == ["valid", "test"]
    assert (run.folder / "tries").read_text() == "1"


# Writes a file with its number of threads, and waits for another file. Fails after a minute.
MEET = """
import os, pathlib, sys, time
here, other = map(pathlib.Path, sys.argv[3:5])
here.write_text(os.environ.get("OMP_NUM_THREADS", ""))
until = time.monotonic() + 60
while not other.exists() and time.monotonic() < until:
    time.sleep(0.02)
assert other.exists()
"""
FAIL = "sys.exit(int(sys.argv[5]))"


def meeting(run, here, other, then=TRAIN, status=""):
    """A run whose training writes ``here`` and then waits for ``other``."""
    arguments = (str(run.folder), "", str(here), str(other), str(status))
    return replace(run, train=(sys.executable, "-c", MEET + then, *arguments))


def test_two_run_at_a_time_and_share_the_cores(grid, tmp_path, data, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("experiments.processes.available_cpus", lambda: 8)
    first, second = stubbed(grid, tmp_path, data, ["ctc", "skd"], [1])
    notes = tmp_path / "first", tmp_path / "second"
    both = [meeting(first, *notes), meeting(second, *notes[::-1])]
    assert execution.run_all(both, tmp_path, jobs=16) == []  # two have something to do
    assert [note.read_text() for note in notes] == ["4", "4"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_threads_that_the_user_chose_are_left(grid, tmp_path, data, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    runs = stubbed(grid, tmp_path, data, ["ctc", "skd"], [1])
    execution.run_all([meeting(runs[0], tmp_path / "note", tmp_path), runs[1]], tmp_path, jobs=2)
    assert (tmp_path / "note").read_text() == "7"


@pytest.mark.slow
def test_a_run_begins_as_soon_as_its_teacher_is_trained(grid, tmp_path, data, monkeypatch):
    """It starts while the teacher is still decoded, before runs further down in the grid."""
    monkeypatch.setattr(execution, "_AGAIN", 0.05)
    teacher, behind, student = stubbed(grid, tmp_path, data, seeds=[1])
    assert (teacher.arm, behind.arm, student.arm) == ("ctc", "skd", "kd")
    begun = tmp_path / "begun"
    decode = teacher.decode[0].command
    waits = (*decode[:2], MEET + decode[2], *decode[3:], str(tmp_path / "decoded"), str(begun))
    teacher = replace(teacher, decode=(replace(teacher.decode[0], command=waits), *teacher.decode[1:]))
    student = meeting(student, begun, tmp_path)
    assert execution.run_all([teacher, student], tmp_path, jobs=2) == []
    again = tmp_path / "again"
    runs = {run.arm: run for run in stubbed(grid, again, data, seeds=[1])}
    assert execution.run_all([runs["kd"], runs["ctc"], runs["skd"]], again, jobs=1) == []
    assert [(runs[arm].folder / "trained").stat().st_mtime_ns for arm in ("ctc", "kd", "skd")] == sorted(
        (run.folder / "trained").stat().st_mtime_ns for run in runs.values()
    )


def test_the_others_go_on_when_one_fails(grid, tmp_path, data, capsys):
    broken, slow, worse, never = stubbed(grid, tmp_path, data, ["ctc", "skd"])
    broken = meeting(broken, tmp_path / "broken", tmp_path / "slow", FAIL, 3)
    slow = meeting(slow, tmp_path / "slow", tmp_path / "worse")
    worse = meeting(worse, tmp_path / "worse", tmp_path / "broken", FAIL, 4)
    told = (
        r"tiny ctc seed 1: a command failed with status 3, see its output in .*train.log; "
        r"tiny ctc seed 2: a command failed with status 4, see its output in .*train.log"
    )
    with pytest.raises(UserError, match="|".join([told, "seed 2: .*status 4.*; tiny ctc seed 1: .*status 3"])):
        execution.run_all([broken, slow, worse, never], tmp_path, jobs=3)
    assert "; no other run is started, these go on: " in capsys.readouterr().out
    assert (slow.folder / "result.json").is_file()
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
    assert not (never.folder / "tries").exists()


def test_a_run_that_cannot_be_written_is_named(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    missing = replace(run, train=("/no/such/python",))
    with pytest.raises(UserError, match="tiny ctc seed 1: .*No such file or directory: '/no/such/python'"):
        execution.run_all([missing], tmp_path)


@pytest.mark.slow
def test_a_kill_after_a_failure_takes_the_others_along(grid, tmp_path, data):
    broken, slow = stubbed(grid, tmp_path, data, ["ctc", "skd"], [1])
    broken = meeting(broken, tmp_path / "broken", tmp_path / "slow", FAIL, 3)
    slow = meeting(slow, tmp_path / "slow", tmp_path / "never")
    (tmp_path / "runs").write_bytes(pickle.dumps([broken, slow]))
    command = [sys.executable, "-u", "-c", JOB, str(tmp_path / "runs")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        for said in job.stdout:
            if "what runs goes on: tiny skd seed 1" in said:
                break
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=50)
    with locked(slow.folder / "lock") as lock:
        assert lock is not None
    assert noted(slow)["attempts"][-1]["ended"] is not None


def test_what_does_not_end_when_it_is_told_to_is_killed(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.2)
    (run,) = stubbed(grid, tmp_path, tmp_path, ["ctc"], [1])
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    commands = execution.Commands(1)
    log = tmp_path / "log"
    with execution.ThreadPoolExecutor(1) as pool, (tmp_path / "lock").open("w") as lock:
        called = pool.submit(commands.call, [sys.executable, "-c", stubborn], log, run, lock.fileno())
        while not log.exists() or not log.read_text():
            pass
        commands.end()
        with pytest.raises(UserError, match="a command failed with status -9"):
            called.result(timeout=50)
        with pytest.raises(UserError, match="tiny ctc seed 1: not finished, because the commands were ended"):
            commands.call([sys.executable, "-c", ""], log, run, lock.fileno())


def test_what_another_job_has_is_tried_again(grid, tmp_path, data, capsys, monkeypatch):
    runs = stubbed(grid, tmp_path, data, ["ctc", "skd"], [1])
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        real = folder.collect

        def collect(out):  # the other job has ended by then
            fcntl.flock(held, fcntl.LOCK_UN)
            real(out)

        monkeypatch.setattr(folder, "collect", collect)
        assert execution.run_all(runs, tmp_path, jobs=2) == []
    assert "tiny ctc seed 1: another job has it" in capsys.readouterr().out
