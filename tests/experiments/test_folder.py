"""The folder of a run: data, encoder, and attempts that are interrupted or outlive their job."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import execution, folder
from experiments.folder import data_hash, encoder_hash, locked, state
from experiments.grid import REPOSITORY
from experiments.runs import Data, runs_of
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, JOB, noted, stub, stubbed


def test_the_data_hash_sees_what_is_trained_on_but_not_the_root(data):
    files = Data.of({"task.data": data}).training_files()
    before = data_hash(files)
    (data / "train.tsv").write_text("/elsewhere\na.wav\t16000\n")
    for other in ("lexicon.txt", "more.tsv", "more.ltr", "train.wrd", "test.ltr"):
        (data / other).write_text("A A |\n")
    assert data_hash(files) == before
    seen = {before}
    for name in ("train.tsv", "train.ltr", "valid.ltr", "dict.ltr.txt"):
        (data / name).write_text("B |\nB\n")
        seen.add(data_hash(files))
    assert len(seen) == 5


def test_an_encoder_that_was_changed(grid, tmp_path, data):
    """Its content counts, for a file or a folder. Its path is in the command."""
    encoder = tmp_path / "w2v.pt"
    encoder.write_bytes(b"weights")
    (run,) = (stub(run, data) for run in runs_of(grid, tmp_path, {**GIVEN, "model.w2v_path": encoder}, ["skd"], [1]))
    execution.run_all([run], tmp_path)
    written = json.loads((run.folder / "result.json").read_text())["encoder_sha256"]
    assert written == hashlib.sha256(b"weights").hexdigest() == encoder_hash(encoder)
    encoder.write_bytes(b"Weights")
    with pytest.raises(UserError, match=rf"seed1 holds a run from another encoder, {encoder} has changed: move the"):
        execution.run_all([run], tmp_path)
    assert state(run).startswith("its folder holds a run from another encoder")
    transformers = tmp_path / "transformers"
    (transformers / "onnx").mkdir(parents=True)
    seen = {encoder_hash(transformers)}
    for name, content in (("config.json", "{}"), ("config.json", "{ }"), ("model.safetensors", "{}")):
        (transformers / name).write_text(content)
        seen.add(encoder_hash(transformers))
    assert len(seen) == 4 and encoder_hash(tmp_path / "none") == hashlib.sha256().hexdigest()


def test_a_run_that_was_cut_off_goes_on(grid, tmp_path, data, monkeypatch):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1], fails="fails")
    monkeypatch.setattr(folder, "current_commit", lambda: "1111111")
    with pytest.raises(
        UserError, match=r"tiny ctc seed 1: a command failed with status 1, see its output in .*train.log"
    ):
        execution.run_all([run], tmp_path)
    (first,) = noted(run)["attempts"]
    monkeypatch.setattr(folder, "current_commit", lambda: "2222222-changed")
    assert execution.run_all([run], tmp_path) == []
    assert (run.folder / "tries").read_text() == "2"
    before, second = noted(run)["attempts"]
    assert before == first and first["begun"] < first["ended"] < second["begun"] < second["ended"]
    assert "interrupted" in (run.folder / "train.log").read_text()
    monkeypatch.setattr(folder, "current_commit", lambda: "3333333")  # the commit when the run is asked for again
    assert execution.run_all([run], tmp_path) == []
    result = json.loads((run.folder / "result.json").read_text())
    assert result["commit"] == "1111111, 2222222-changed"
    assert result["seconds"] == pytest.approx(sum(one["ended"] - one["begun"] for one in (first, second)), abs=1e-3)


# Writes a file, then takes its time.
TRAINING = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(100)"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_no_second_training_beside_one_that_outlives_its_job(grid, tmp_path, data, kill, jobs):
    runs = stubbed(grid, tmp_path, data, ["ctc"], [1, 2][:jobs])
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
            if kill == signal.SIGTERM:  # it ended its training and recorded the time
                assert lock is not None
                assert noted(run)["attempts"][-1]["ended"] is not None
            else:  # SIGKILL: the training goes on, and keeps the folder
                assert lock is None
    for child in children if kill == signal.SIGKILL else ():
        os.kill(int(child), signal.SIGKILL)
    for run in runs:
        with locked(run.folder / "lock", wait=True) as lock:
            assert lock is not None


def test_a_training_that_outlived_its_job_is_not_begun_again(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
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
    log.write_text(said)  # as when it was interrupted
    execution.run_all([run], tmp_path)
    assert (run.folder / "tries").read_text() == "2"


def test_a_killed_attempt_counts_to_the_last_line_of_its_log(grid, tmp_path, data):
    """Its end was not recorded: the machine went down, or the training outlived its job."""
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    execution.run_all([run], tmp_path)
    (run.folder / "result.json").unlink()
    first = {"commit": "1111111", "begun": 1000.0, "ended": 1100.5}
    killed = {"commit": "1111111", "begun": 2000000000.25, "ended": None}
    note = noted(run)
    (run.folder / "run.json").write_text(json.dumps({**note, "attempts": [first, killed]}))
    os.utime(run.folder / "train.log", (2000000060, 2000000060))
    execution.run_all([run], tmp_path)
    assert json.loads((run.folder / "result.json").read_text())["seconds"] == pytest.approx(160.25)
    with folder.attempt(run):  # from its last checkpoint
        os.utime(run.folder / "train.log", (2000000900, 2000000900))
    assert noted(run)["attempts"][:2] == [first, {**killed, "ended": 2000000060}]


def test_an_attempt_that_left_nothing_does_not_count(grid, tmp_path, data, monkeypatch):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1], fails="fails")
    monkeypatch.setattr(folder, "current_commit", lambda: "1111111")
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([run], tmp_path)
    (run.folder / "checkpoints" / "checkpoint_last.pt").unlink()  # as if it had died before the first checkpoint
    monkeypatch.setattr(folder, "current_commit", lambda: "2222222")
    execution.run_all([run], tmp_path)
    result = json.loads((run.folder / "result.json").read_text())
    assert result["commit"] == "2222222" and len(noted(run)["attempts"]) == 1


def test_how_far_a_run_is(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["skd"], [1], fails="fails")
    assert state(run) == "to do"
    with pytest.raises(UserError):
        execution.run_all([run], tmp_path)
    assert state(run) == "started"
    execution.run_all([run], tmp_path)
    assert state(run) == "done"
    (more,) = stubbed(replace(grid, subsets=("more",)), tmp_path, data, ["skd"], [1], fails="fails")
    assert state(more) == "trained, not yet decoded and compared"


def test_a_run_does_not_go_on_with_other_data(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1], fails="fails")
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([run], tmp_path)
    (data / "train.ltr").write_text("B |\n")
    with pytest.raises(UserError, match=rf"seed1 holds a run of other data, .*{data}/train.ltr,"):
        execution.run_all([run], tmp_path)
    assert state(run).startswith("its folder holds a run of other data, ")
    assert (run.folder / "tries").read_text() == "1"


def test_another_experiment_is_not_mixed_in(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    execution.run_all([run], tmp_path)
    changed = replace(run, train=(*run.train, "optimization.lr=[1]"))
    with pytest.raises(UserError, match="holds a run of another command"):
        execution.run_all([changed], tmp_path)


def test_a_folder_of_another_version_is_not_gone_on_with(grid, tmp_path, data):
    (run,) = stubbed(grid, tmp_path, data, ["ctc"], [1])
    run.folder.mkdir(parents=True)
    (run.folder / "train.log").touch()
    with pytest.raises(
        UserError, match="seed1 holds a run that another version started: move the folder away, or give another"
    ):
        execution.run_all([run], tmp_path)
