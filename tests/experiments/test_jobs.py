"""Several runs at a time, with commands that train nothing."""

import fcntl
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from experiments import execution
from experiments.folder import locked
from experiments.grid import runs_of
from experiments.grid_file import REPOSITORY
from experiments.run_grid import main
from fairseq_skd import processes
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, JOB, TRAIN, stub

# Says that it has begun, with the threads it may have, and waits for another file: in vain, it fails after a minute.
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
    """The run, whose training waits for ``other`` once it has made ``here``."""
    arguments = (str(run.folder), "", str(here), str(other), str(status))
    return replace(run, train=(sys.executable, "-c", MEET + then, *arguments))


def test_two_run_at_a_time_and_share_the_cores(grid, tmp_path, data, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("fairseq_skd.corpora.workers.available_cpus", lambda: 8)
    first, second = (stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"], [1]))
    notes = tmp_path / "first", tmp_path / "second"
    both = [meeting(first, *notes), meeting(second, *notes[::-1])]
    assert execution.run_all(both, tmp_path, jobs=16) == []  # of which two have something to do
    assert [note.read_text() for note in notes] == ["4", "4"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_threads_that_the_user_chose_are_left(grid, tmp_path, data, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"], [1])]
    execution.run_all([meeting(runs[0], tmp_path / "note", tmp_path), runs[1]], tmp_path, jobs=2)
    assert (tmp_path / "note").read_text() == "7"


def test_a_run_begins_as_soon_as_its_teacher_is_trained(grid, tmp_path, data, monkeypatch):
    """While the teacher is still decoded, and before those that stand behind it in the grid."""
    monkeypatch.setattr(execution, "_AGAIN", 0.05)
    teacher, behind, student = (stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, seeds=[1]))
    assert (teacher.arm, behind.arm, student.arm) == ("ctc", "skd", "kd")
    begun = tmp_path / "begun"
    subset, layer = next(iter(teacher.decode))
    decode = teacher.decode[subset, layer]
    waits = (*decode[:2], MEET + decode[2], *decode[3:], str(tmp_path / "decoded"), str(begun))
    teacher = replace(teacher, decode={**teacher.decode, (subset, layer): waits})
    student = meeting(student, begun, tmp_path)
    assert execution.run_all([teacher, student], tmp_path, jobs=2) == []
    again = tmp_path / "again"
    runs = {run.arm: stub(run, data) for run in runs_of(grid, again, GIVEN, seeds=[1])}
    assert execution.run_all([runs["kd"], runs["ctc"], runs["skd"]], again, jobs=1) == []
    assert [(runs[arm].folder / "trained").stat().st_mtime_ns for arm in ("ctc", "kd", "skd")] == sorted(
        (run.folder / "trained").stat().st_mtime_ns for run in runs.values()
    )


def test_the_others_go_on_when_one_fails(grid, tmp_path, data, capsys):
    broken, slow, worse, never = (stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"]))
    broken = meeting(broken, tmp_path / "broken", tmp_path / "slow", FAIL, 3)
    slow = meeting(slow, tmp_path / "slow", tmp_path / "worse")
    worse = meeting(worse, tmp_path / "worse", tmp_path / "broken", FAIL, 4)
    told = (
        r"tiny ctc seed 1: a command failed \(status 3\); what it said is in .*train.log; "
        r"tiny ctc seed 2: a command failed \(status 4\)"
    )
    with pytest.raises(UserError, match="|".join([told, "ctc seed 2: .*status 4.*ctc seed 1: .*status 3"])):
        execution.run_all([broken, slow, worse, never], tmp_path, jobs=3)
    assert "; nothing more is begun, what runs goes on: " in capsys.readouterr().out
    assert (slow.folder / "result.json").is_file()
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
    assert not (never.folder / "tries").exists()


def test_a_run_that_cannot_be_written_is_named(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    missing = replace(run, train=("/no/such/python",))
    with pytest.raises(UserError, match="tiny ctc seed 1: .*No such file or directory: '/no/such/python'"):
        execution.run_all([missing], tmp_path)


def test_a_kill_after_a_failure_takes_the_others_along(grid, tmp_path, data):
    broken, slow = (stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"], [1]))
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
    assert len((slow.folder / "seconds").read_text().split()) == 1  # its attempt has ended


def test_what_does_not_end_when_it_is_told_to_is_killed(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.2)
    (run,) = runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])
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
        with pytest.raises(UserError, match=r"a command failed \(status -9\)"):
            called.result(timeout=50)
        with pytest.raises(UserError, match="tiny ctc seed 1: not gone on with"):
            commands.call([sys.executable, "-c", ""], log, run, lock.fileno())


def test_what_another_job_has_is_tried_again(grid, tmp_path, data, capsys, monkeypatch):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"], [1])]
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        real = execution.collect

        def collect(out):  # by then the other job has ended
            fcntl.flock(held, fcntl.LOCK_UN)
            real(out)

        monkeypatch.setattr(execution, "collect", collect)
        assert execution.run_all(runs, tmp_path, jobs=2) == []
    assert "tiny ctc seed 1: another job is at it" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_cannot_be(tmp_path, capsys, jobs):
    with pytest.raises(SystemExit):
        main(["grid.yaml", "--out", str(tmp_path), f"--jobs={jobs}"])
    assert f"argument --jobs: '{jobs}' is not a whole number from 1 on" in capsys.readouterr().err
