"""The grid runner, with commands that train nothing."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import results, run_grid
from experiments.grid import Run, aligned, decoded, runs_of
from experiments.grid_file import REPOSITORY
from experiments.results import data_hash, locked
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, GRID

# What stands for training, decoding and the analysis. Training fails the first time where it is told to, and then
# goes on where it was.
TRAIN = """
import json, pathlib, sys
folder, fails = pathlib.Path(sys.argv[1]), sys.argv[2] == "fails"
tries = folder / "tries"
n = int(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text(str(n))
if fails and n == 1:
    sys.exit("cut off")
entry = {"valid_num_updates": "30", "valid_loss": "1.5"}
(folder / "hydra_train.log").write_text("[x][valid][INFO] - " + json.dumps(entry))
"""
DECODE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
keys = "wer cer word_errors words character_errors characters sentences parameters"
(folder / "summary.json").write_text(json.dumps({key: int(sys.argv[2]) for key in keys.split()}))
"""
ALIGN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
rate = {"value": 0.25, "low": 0.2, "high": 0.3}
rates = dict.fromkeys(("frame_disagreement", "spike_disagreement", "spike_miss"), rate)
(folder / "align.json").write_text(json.dumps({**rates, "offset": {"mean_ms": 5.0}, "subset": "test"}))
"""


def stub(run: Run, data: Path, fails: str = "") -> Run:
    """The run with its commands replaced by those above."""
    python = (sys.executable, "-c")
    return replace(
        run,
        data=(data,),
        train=(*python, TRAIN, str(run.folder), fails),
        decode={key: (*python, DECODE, str(decoded(run.folder, *key)), str(key[1])) for key in run.decode},
        align={layer: (*python, ALIGN, str(aligned(run.folder, layer))) for layer in run.align},
    )


def test_results_are_collected_and_nothing_runs_twice(grid, tmp_path, data):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN)]
    assert run_grid.run_all(runs, tmp_path) == []
    assert run_grid.run_all(runs, tmp_path) == []
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
    assert skd["data_sha256"] == data_hash(data) and len(skd["data_sha256"]) == 64


def test_a_run_that_was_cut_off_goes_on(grid, tmp_path, data, monkeypatch):
    (run,) = [stub(run, data, "fails") for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    monkeypatch.setattr(results, "_commit", lambda: "1111111")
    with pytest.raises(
        UserError, match=r"tiny ctc seed 1: a command failed \(status 1\); what it said is in .*train.log"
    ):
        run_grid.run_all([run], tmp_path)
    first = float((run.folder / "seconds").read_text())
    monkeypatch.setattr(results, "_commit", lambda: "2222222-changed")
    assert run_grid.run_all([run], tmp_path) == []
    assert (run.folder / "tries").read_text() == "2"
    assert float((run.folder / "seconds").read_text()) > first
    assert "cut off" in (run.folder / "train.log").read_text()
    monkeypatch.setattr(results, "_commit", lambda: "3333333")  # of the day when it is asked for again
    assert run_grid.run_all([run], tmp_path) == []
    assert json.loads((run.folder / "result.json").read_text())["commit"] == "1111111, 2222222-changed"


def test_what_was_added_to_a_grid_is_done_without_training(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    run_grid.run_all([run], tmp_path)
    before = (run.folder / "decode" / "test-layer2" / "summary.json").stat().st_mtime_ns
    (more,) = [stub(run, data) for run in runs_of({**grid, "subsets": ["test", "more"]}, tmp_path, GIVEN, ["skd"], [1])]
    run_grid.run_all([more], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [(score["subset"], score["exit"]) for score in scores] == [
        ("test", 4),
        ("test", 2),
        ("more", 4),
        ("more", 2),
    ]
    assert (run.folder / "tries").read_text() == "1"
    assert (run.folder / "decode" / "test-layer2" / "summary.json").stat().st_mtime_ns == before


# A job whose training says that it is there, and then takes its time.
JOB = """
import pathlib, signal, sys
from experiments import run_grid
from experiments.results import locked
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, run_grid._terminate)
training = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(100)"
with locked(folder / "lock") as lock:
    command = [sys.executable, "-c", training, str(folder / "begun")]
    run_grid._call(command, folder / "log", None, lock, folder / "seconds")
"""


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_no_second_training_beside_one_that_outlives_its_job(tmp_path, kill):
    job = subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path)], cwd=REPOSITORY)
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    job.send_signal(kill)
    job.wait()
    with locked(tmp_path / "lock") as lock:
        if kill == signal.SIGTERM:  # it took its training along, and noted the time
            assert lock is not None
            assert float((tmp_path / "seconds").read_text()) > 0
        else:  # nobody can be told that it dies: the training goes on, and keeps the folder
            assert lock is None
            for child in children:
                os.kill(int(child), signal.SIGKILL)
    with locked(tmp_path / "lock", wait=True) as lock:
        assert lock is not None


def test_no_two_jobs_in_one_folder(grid, tmp_path, data, capsys):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, seeds=[1])]
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        left = run_grid.run_all(runs, tmp_path)
    assert [run.arm for run in left] == ["ctc", "kd"]  # kd waits for its teacher
    assert "tiny ctc seed 1: another job is at it" in capsys.readouterr().out
    assert not (runs[0].folder / "tries").exists()
    assert run_grid.run_all(runs, tmp_path) == []


def test_a_training_that_is_done_is_not_begun_again(grid, tmp_path, data):
    """fairseq takes one more update of a training that had all of them."""
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    broken = replace(run, decode=dict.fromkeys(run.decode, (sys.executable, "-c", "exit(3)")))
    with pytest.raises(
        UserError, match=r"a command failed \(status 3\); what it said is in .*decode-valid-layer4\.log"
    ):
        run_grid.run_all([broken], tmp_path)
    assert run_grid.run_all([run], tmp_path) == []
    assert (run.folder / "tries").read_text() == "1"


def test_a_decoding_with_other_settings_is_made_again(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    run_grid.run_all([run], tmp_path)
    command = run.decode["test", 2]
    changed = replace(run, decode={**run.decode, ("test", 2): (*command[:-1], "7")})
    others = (run.folder / "decode" / "test-layer4" / "summary.json").stat().st_mtime_ns
    run_grid.run_all([changed], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [score["wer"] for score in scores] == [4, 2, 4, 7]
    assert (run.folder / "tries").read_text() == "1"
    assert (run.folder / "decode" / "test-layer4" / "summary.json").stat().st_mtime_ns == others


def test_another_experiment_is_not_mixed_in(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    run_grid.run_all([run], tmp_path)
    changed = replace(run, train=(*run.train, "optimization.lr=[1]"))
    with pytest.raises(UserError, match="holds a run of another command"):
        run_grid.run_all([changed], tmp_path)


def test_the_data_hash_sees_labels_but_not_the_root(data):
    before = data_hash(data)
    (data / "train.tsv").write_text("/elsewhere\na.wav\t16000\n")
    assert data_hash(data) == before
    (data / "train.ltr").write_text("B |\n")
    assert data_hash(data) != before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "task.data is not set"),
        (["task.data={here}"], "model.w2v_path is not set"),
        (["task.data={here}", "model.w2v_path=gone.pt"], "model.w2v_path=/.*gone.pt is not there"),
        (["task.data={here}", "model.w2v_path={here}", "task.label_dir=no"], "task.label_dir=/.*no is not there"),
        (["task.data={here}", "model.w2v_path={here}", "--arms", "guide"], "--arms guide: the grid has ctc, skd, kd"),
        (["common.seed=5"], "common.seed is set by the grid for each run: give --seeds"),
        (["checkpoint.save_dir=/x"], "checkpoint.save_dir is set by the grid for each run: give --out"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, arguments, sentence):
    (tmp_path / "grid.yaml").write_text(GRID)
    given = [argument.format(here=tmp_path) for argument in arguments]
    with pytest.raises(UserError, match=sentence):
        run_grid.main([str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "out"), *given])
    assert not (tmp_path / "out").exists()


def test_data_in_a_folder_whose_name_has_a_space(tmp_path, data, capsys, monkeypatch):
    """Hydra's grammar needs quotes around it; what reads the folder here must not see them."""
    (tmp_path / "grid.yaml").write_text(GRID)
    folder = tmp_path / "my data"
    data.rename(folder)
    monkeypatch.setattr(run_grid, "run_all", lambda runs, out: found.extend(runs) or [])
    found: list[Run] = []
    run_grid.main(
        [
            str(tmp_path / "grid.yaml"),
            f"--out={tmp_path / 'my runs'}",
            f"task.data={folder}",
            f"model.w2v_path={folder}",
        ]
    )
    run = found[1]
    assert f"task.data='{folder}'" in run.train
    assert f"task.data='{folder}'" in run.decode["test", 2]
    assert run.data == (folder,)
    (stubbed,) = [stub(run, *run.data)]
    assert run_grid._run_one(stubbed)
    assert json.loads((run.folder / "result.json").read_text())["data_sha256"] == data_hash(folder)
