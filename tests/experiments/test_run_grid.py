"""The grid runner, with commands that train nothing."""

import fcntl
import json
import sys
from dataclasses import replace

import pytest

from experiments import execution
from experiments.folder import data_hash
from experiments.grid import runs_of
from experiments.results import state
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, stub


def test_results_are_collected_and_nothing_runs_twice(grid, tmp_path, data):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN)]
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


def test_what_was_added_to_a_grid_is_done_without_training(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    before = (run.folder / "decode" / "test-layer2" / "summary.json").stat().st_mtime_ns
    (more,) = [stub(run, data) for run in runs_of({**grid, "subsets": ["test", "more"]}, tmp_path, GIVEN, ["skd"], [1])]
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


def test_no_two_jobs_in_one_folder(grid, tmp_path, data, capsys):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, seeds=[1])]
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        left = execution.run_all(runs, tmp_path)
    assert [run.arm for run in left] == ["ctc", "kd"]  # kd waits for its teacher
    assert "tiny ctc seed 1: another job is at it" in capsys.readouterr().out
    assert not (runs[0].folder / "tries").exists()
    assert execution.run_all(runs, tmp_path) == []


def test_a_training_that_is_done_is_not_begun_again(grid, tmp_path, data):
    """fairseq takes one more update of a training that had all of them."""
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    broken = replace(run, decode=dict.fromkeys(run.decode, (sys.executable, "-c", "exit(3)")))
    with pytest.raises(
        UserError, match=r"a command failed \(status 3\); what it said is in .*decode-valid-layer4\.log"
    ):
        execution.run_all([broken], tmp_path)
    assert execution.run_all([run], tmp_path) == []
    assert (run.folder / "tries").read_text() == "1"


def test_a_decoding_with_other_settings_is_made_again(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    command = run.decode["test", 2]
    changed = replace(run, decode={**run.decode, ("test", 2): (*command[:-1], "7")})
    others = (run.folder / "decode" / "test-layer4" / "summary.json").stat().st_mtime_ns
    execution.run_all([changed], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [score["wer"] for score in scores] == [4, 2, 4, 7]
    assert (run.folder / "tries").read_text() == "1"
    assert (run.folder / "decode" / "test-layer4" / "summary.json").stat().st_mtime_ns == others


def test_another_experiment_is_not_mixed_in(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    execution.run_all([run], tmp_path)
    changed = replace(run, train=(*run.train, "optimization.lr=[1]"))
    with pytest.raises(UserError, match="holds a run of another command"):
        execution.run_all([changed], tmp_path)


def test_a_damaged_result_is_made_again(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    whole = (run.folder / "result.json").read_text()
    (run.folder / "result.json").write_text(whole[:100])
    assert state(run) == "trained, to be decoded or compared"
    execution.run_all([run], tmp_path)
    assert (run.folder / "result.json").read_text() == whole == (tmp_path / "results.jsonl").read_text()
    assert (run.folder / "tries").read_text() == "1"


def test_a_training_that_saved_nothing(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    with pytest.raises(UserError, match="ctc seed 1: the training ended without .*checkpoint_best.pt: its epochs"):
        execution.run_all([replace(run, train=(sys.executable, "-c", ""))], tmp_path)
    assert state(run) == "its folder holds a run of another command"


def test_how_far_a_run_is(grid, tmp_path, data):
    (run,) = [stub(run, data, "fails") for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    assert state(run) == "to do"
    with pytest.raises(UserError):
        execution.run_all([run], tmp_path)
    assert state(run) == "begun"
    execution.run_all([run], tmp_path)
    assert state(run) == "done"
    more = stub(runs_of({**grid, "subsets": ["more"]}, tmp_path, GIVEN, ["skd"], [1])[0], data, "fails")
    assert state(more) == "trained, to be decoded or compared"


def test_a_run_does_not_go_on_with_other_data(grid, tmp_path, data):
    (run,) = [stub(run, data, "fails") for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([run], tmp_path)
    (data / "train.ltr").write_text("B |\n")
    with pytest.raises(UserError, match=rf"seed1 was begun with other data, .*{data}/train.ltr,"):
        execution.run_all([run], tmp_path)
    assert state(run) == "its folder holds a run of other data"
    assert (run.folder / "tries").read_text() == "1"


def test_a_subset_that_was_changed_is_decoded_again(grid, tmp_path, data):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    files = [run.folder / "decode" / f"{subset}-layer4" / "summary.json" for subset in ("valid", "test")]
    before = [file.stat().st_mtime_ns for file in files]
    (data / "test.ltr").write_text("A |\n")
    (data / "more.tsv").write_text("/somewhere\n")
    assert state(run) == "trained, to be decoded or compared"
    execution.run_all([run], tmp_path)
    after = [file.stat().st_mtime_ns for file in files]
    assert before[0] == after[0] and before[1] < after[1]
    assert (run.folder / "tries").read_text() == "1" and state(run) == "done"


@pytest.mark.parametrize("file", ["decode/test-layer2/summary.json", "align/layer2/align.json"])
def test_a_damaged_evaluation_is_made_again(grid, tmp_path, data, file):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    whole = (run.folder / file).read_text()
    (run.folder / file).write_text(whole[:-5])
    execution.run_all([run], tmp_path)
    assert (run.folder / file).read_text() == whole


@pytest.mark.faults
def test_a_decoding_without_some_files_is_not_done(grid, tmp_path, data):
    """F29: infer ends with status 3, and run_grid stops; the arms would be compared on other utterances."""
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    summary = run.folder / "decode" / "test-layer2" / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "not_decoded": [{"file": "/a.wav"}]}))
    assert state(run) == "trained, to be decoded or compared"


@pytest.mark.parametrize("name", ["hypo.word", "ref.word"])
def test_texts_that_are_gone_are_decoded_again(grid, tmp_path, data, name):
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    file = run.folder / "decode" / "test-layer2" / name
    file.unlink()
    assert state(run) == "trained, to be decoded or compared"
    execution.run_all([run], tmp_path)
    assert file.is_file() and state(run) == "done"


def test_a_result_without_what_was_added_does_not_pass_for_the_whole(grid, tmp_path, data):
    """As where run_grid was killed while the last decoding, which outlives it, went on."""
    (run,) = [stub(run, data) for run in runs_of({**grid, "subsets": ["test"]}, tmp_path, GIVEN, ["ctc"], [1])]
    execution.run_all([run], tmp_path)
    (more,) = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc"], [1])]
    broken = replace(more, decode={**more.decode, ("valid", 4): (sys.executable, "-c", "exit(3)")})
    with pytest.raises(UserError, match="a command failed"):
        execution.run_all([broken], tmp_path)
    assert not (run.folder / "result.json").exists()
    execution.run_all([more], tmp_path)
    scores = json.loads((run.folder / "result.json").read_text())["scores"]
    assert [score["subset"] for score in scores] == ["valid", "test"]
    assert (run.folder / "tries").read_text() == "1"
