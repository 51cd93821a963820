"""Trainings that are cut off, killed, or outlive their job: how they go on, and what is known of them."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import attempts, execution
from experiments.folder import locked
from experiments.grid import runs_of
from experiments.grid_file import REPOSITORY
from experiments.results import state
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, JOB, stub


def test_a_run_that_was_cut_off_goes_on(grid, tmp_path, data, monkeypatch):
    (run,) = [stub(run, data, "fails") for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    monkeypatch.setattr(attempts, "_commit", lambda: "1111111")
    with pytest.raises(
        UserError, match=r"tiny ctc seed 1: a command failed \(status 1\); what it said is in .*train.log"
    ):
        execution.run_all([run], tmp_path)
    first = float((run.folder / "seconds").read_text())
    monkeypatch.setattr(attempts, "_commit", lambda: "2222222-changed")
    assert execution.run_all([run], tmp_path) == []
    assert (run.folder / "tries").read_text() == "2"
    assert float((run.folder / "seconds").read_text()) > first
    assert "cut off" in (run.folder / "train.log").read_text()
    monkeypatch.setattr(attempts, "_commit", lambda: "3333333")  # of the day when it is asked for again
    assert execution.run_all([run], tmp_path) == []
    assert json.loads((run.folder / "result.json").read_text())["commit"] == "1111111, 2222222-changed"


# Says that it is there, and then takes its time.
TRAINING = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(100)"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_no_second_training_beside_one_that_outlives_its_job(grid, tmp_path, data, kill, jobs):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1, 2][:jobs])]
    runs = [replace(run, train=(sys.executable, "-c", TRAINING, str(run.folder / "begun"))) for run in runs]
    (tmp_path / "runs").write_bytes(pickle.dumps(runs))
    job = subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path / "runs")], cwd=REPOSITORY, stderr=subprocess.PIPE)
    while not all((run.folder / "begun").exists() for run in runs):
        assert job.poll() is None
        time.sleep(0.05)
    children = [
        child for file in Path(f"/proc/{job.pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    job.send_signal(kill)
    job.communicate()
    for run in runs:
        with locked(run.folder / "lock") as lock:
            if kill == signal.SIGTERM:  # it took its training along, and noted the time
                assert lock is not None
                assert len((run.folder / "seconds").read_text().split()) == 1  # no attempt that has not ended
            else:  # nobody can be told that it dies: the training goes on, and keeps the folder
                assert lock is None
    for child in children if kill == signal.SIGKILL else ():
        os.kill(int(child), signal.SIGKILL)
    for run in runs:
        with locked(run.folder / "lock", wait=True) as lock:
            assert lock is not None


def test_a_training_that_outlived_its_job_is_not_begun_again(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    execution.run_all([run], tmp_path)
    for name in ("trained", "result.json"):
        (run.folder / name).unlink()
    log = run.folder / "hydra_train.log"
    said = log.read_text()
    log.write_text(f"{said}\n[x][fairseq_cli.train][INFO] - done training in 1.0 seconds\n")
    execution.run_all([run], tmp_path)
    assert (run.folder / "tries").read_text() == "1" and state(run) == "done"
    for name in ("trained", "result.json"):
        (run.folder / name).unlink()
    log.write_text(said)  # as when it was cut off
    execution.run_all([run], tmp_path)
    assert (run.folder / "tries").read_text() == "2"


def test_a_killed_attempt_counts_to_the_last_line_of_its_log(grid, tmp_path, data):
    """Nobody noted its end: the machine went down, or the training ended after its job."""
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    execution.run_all([run], tmp_path)
    (run.folder / "result.json").unlink()
    (run.folder / "seconds").write_text("100.5 2000000000.25\n")
    os.utime(run.folder / "train.log", (2000000060, 2000000060))
    assert attempts.spent(run) == pytest.approx(160.25)
    execution.run_all([run], tmp_path)
    assert json.loads((run.folder / "result.json").read_text())["seconds"] == pytest.approx(160.25)
    with attempts.attempt(run):
        os.utime(run.folder / "train.log", (2000000900, 2000000900))
    assert 160.25 <= attempts.spent(run) < 200


@pytest.mark.parametrize("content", [None, "", "a while", "nan", "1 2 3", "nan 2000000000"])
def test_seconds_that_are_not_known(grid, tmp_path, data, content):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    execution.run_all([run], tmp_path)
    (run.folder / "result.json").unlink()
    (run.folder / "seconds").unlink()
    if content is not None:
        (run.folder / "seconds").write_text(content)
    execution.run_all([run], tmp_path)
    assert json.loads((run.folder / "result.json").read_text())["seconds"] is None
    with attempts.attempt(run):  # goes on from a checkpoint of unknown cost
        pass
    assert attempts.spent(run) is None and math.isnan(float((run.folder / "seconds").read_text()))


def test_an_attempt_that_left_nothing_does_not_count(grid, tmp_path, data, monkeypatch):
    (run,) = [stub(run, data, "fails") for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    monkeypatch.setattr(attempts, "_commit", lambda: "1111111")
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([run], tmp_path)
    (run.folder / "checkpoints" / "checkpoint_last.pt").unlink()  # as if it had died before the first one
    (run.folder / "seconds").write_text("5000\n")
    monkeypatch.setattr(attempts, "_commit", lambda: "2222222")
    execution.run_all([run], tmp_path)
    result = json.loads((run.folder / "result.json").read_text())
    assert result["commit"] == "2222222" and result["seconds"] < 5000
