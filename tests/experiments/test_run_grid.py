"""Mistakes in a grid are reported before the first run starts."""

import json

import pytest

from experiments import execution, run_grid
from experiments.folder import data_hash
from experiments.runs import Run
from fairseq_skd.errors import UserError
from tests.builders import write_pretrained
from tests.experiments.grids import GRID, decoding, stub


@pytest.fixture
def given(tmp_path, data) -> list[str]:
    """A grid, an encoder of 4 layers, and manifests with labels."""
    (tmp_path / "grid.yaml").write_text(GRID)
    write_pretrained(tmp_path / "w2v.pt")
    for subset in ("valid", "test"):
        (data / f"{subset}.tsv").write_text("/somewhere\na.wav\t16000\n")
        (data / f"{subset}.ltr").write_text("A |\n")
    places = {"--out": "out", "task.data": data.name, "model.w2v_path": "w2v.pt"}
    return [str(tmp_path / "grid.yaml"), *(f"{key}={tmp_path / name}" for key, name in places.items())]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "task.data is not set"),
        (["task.data={here}"], "model.w2v_path is not set"),
        (["task.data={here}", "model.w2v_path=gone.pt"], "model.w2v_path=/.*gone.pt does not exist"),
        (["task.data={here}", "model.w2v_path={here}", "task.label_dir=no"], "task.label_dir=/.*no does not exist"),
        (
            ["task.data={here}", "model.w2v_path={here}", "--arms", "guide"],
            "--arms guide: the grid has no such arm, give some of ctc, skd, kd",
        ),
        (["++common.seed=5"], "common.seed is set by the grid for each run: give --seeds"),
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


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("~criterion.tau", "~criterion.tua", "arm kd: .*hubert_mini.yaml with .*: .*tua"),
        (
            "criterion.teacher_path",
            "criterion.teachr",
            "arm kd: criterion.teachr is unknown: did you mean .*teacher_path",
        ),
        ("dataset.max_tokens: 100000", "dataset.max_token: 1", "arm ctc: .*viterbi.yaml with .*: .*max_token"),
        (
            "[valid, test]",
            "[valid, tset]",
            "arm ctc: .* subset tset: .*tset.tsv does not exist; the folder has test, ",
        ),
        ("exits: [4, 2]", "exits: [4, 3]", "arm skd: exits has 3, the model will have 2, 4"),
        ("keep_layers: 2", "keep_layers: 20", "arm kd: model.keep_layers=20 is out of range: this encoder has"),
        ('"[2]"}', '"[7]"}', "arm skd: model.student_layers=.7.: there is no student of 7 layers"),
        ('"[2]"}', '"[2]", criterion.tau: 0.9}', "arm skd: criterion.tau=0.9 must be at least 0 and below 0.5"),
        ('"[2]"}', '"[2]", criterion.kd_weight: much}', "arm skd: criterion.kd_weight=much cannot be used: "),
        ('"[2]"}', '"[2]", criterion.frames: some}', "arm skd: criterion.frames=some is not known"),
        ('"[2]"}', '"[2]", model.mask_prob: 2}', "arm skd: model.mask_prob=2.0 is out of range"),
        (
            "optimization.max_update: 30",
            "optimization.max_update: abc",
            "arm ctc: optimization.max_update cannot be used: .*abc",
        ),
        (
            "optimization.max_update: 30",
            "optimization.max_update: null",
            "arm ctc: optimization.max_update cannot be used: ",
        ),
        (
            "max_update: 30",
            "max_updates: 30",
            "arm ctc: .*: there is no key optimization.max_updates, optimization has: ",
        ),
        ('"{teacher}"', '"{techer}"', r"arm kd: .*: \+criterion.teacher_path={techer} cannot be read: "),
        ('"[2]"}', "2}", "arm skd: model.student_layers=2 cannot be used: "),
        ('"[2]"}', '"[2]", task.normalize: true}', "arm skd: task.normalize=True, but the encoder has normalize=False"),
    ],
)
@pytest.mark.parametrize("listed", [[], ["--list"]])
@pytest.mark.slow
def test_what_a_later_arm_would_meet(tmp_path, given, old, new, sentence, listed):
    assert old in GRID
    text = GRID.replace(old, new, 1).replace("better: skd 2, worse: kd 2", "better: skd 4, worse: ctc 4")
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UserError, match=f"^{sentence}"):
        run_grid.main([*given, *listed])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_subset_without_labels_and_an_encoder_that_is_none(data, given):
    with pytest.raises(UserError, match=r"^arm ctc: .*grid\.yaml"):
        run_grid.main([*given[:-1], f"model.w2v_path={given[0]}", "--arms", "ctc"])
    (data / "test.ltr").unlink()
    with pytest.raises(
        UserError, match=r"^arm ctc: the grid's subset test: label file .*test\.ltr does not exist: write it"
    ):
        run_grid.main(given)


@pytest.mark.slow
def test_a_grid_that_has_nothing_wrong_is_listed(tmp_path, given, at_once, capsys):
    run_grid.main([*given, "--list"])
    printed = capsys.readouterr()
    assert "checking arms: 3 of 3 (100 %)" in printed.err
    states = [line for line in printed.out.splitlines() if line.startswith("tiny ")]
    assert states == [f"tiny {arm} seed {seed}: to do" for seed in (1, 2) for arm in ("ctc", "skd", "kd")]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_arm_whose_teacher_was_not_named(tmp_path, given):
    with pytest.raises(
        UserError, match="^not done: tiny kd seed 1 .it needs ctc, which is not done: add that to --arms"
    ):
        run_grid.main([*given, "--arms", "kd", "--seeds", "1"])


@pytest.mark.parametrize("wrong", [["--arms", ""], ["--arms", "skd,,kd"], ["--seeds", "x"], ["--seeds", "1,1"]])
def test_lists_that_are_none(given, wrong, capsys):
    with pytest.raises(SystemExit):
        run_grid.main([*given, *wrong])
    assert f"argument {wrong[0]}: {wrong[1]!r} is not " in capsys.readouterr().err


@pytest.mark.slow
def test_data_in_a_folder_whose_name_has_a_space(tmp_path, data, given, monkeypatch):
    """Hydra's grammar needs quotes around it. Code that reads the folder must not see them."""
    folder = tmp_path / "my data"
    data.rename(folder)
    monkeypatch.setattr(run_grid, "run_all", lambda runs, out, jobs: found.extend(runs) or [])
    found: list[Run] = []
    run_grid.main([given[0], f"--out={tmp_path / 'my runs'}", f"task.data={folder}", given[-1]])
    run = found[1]
    assert f"task.data='{folder}'" in run.train
    assert f"task.data='{folder}'" in decoding(run, "test", 2).command
    assert run.data.manifests == run.data.labels == folder
    stubbed = stub(run, folder)
    assert execution.run_all([stubbed], tmp_path / "my runs") == []
    assert json.loads((run.folder / "result.json").read_text())["data_sha256"] == data_hash(run.data.training_files())


@pytest.mark.slow
def test_a_folder_of_another_run_is_met_before_the_first_one_trains(tmp_path, given, monkeypatch):
    folder = tmp_path / "out" / "tiny" / "kd" / "seed2"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"command": "python -m fairseq_cli.hydra_train"}')
    monkeypatch.setattr(run_grid, "run_all", lambda *_: pytest.fail("it ran"))
    with pytest.raises(
        UserError, match="tiny/kd/seed2 holds a run of another command .*move the folder away, or give another"
    ):
        run_grid.main(given)


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_cannot_be(tmp_path, capsys, jobs):
    with pytest.raises(SystemExit):
        run_grid.main(["grid.yaml", "--out", str(tmp_path), f"--jobs={jobs}"])
    assert f"argument --jobs: '{jobs}' is not a whole number of 1 or more" in capsys.readouterr().err
