"""Grids are checked and turned into commands."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.grid import REPOSITORY, read_grid
from experiments.runs import Data, runs_of, shown
from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.cli import compose
from fairseq_skd.compat import to_container
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, GRID, decoding


def placed(steps):
    return [(step.subset, step.exit) for step in steps]


def test_commands_of_a_grid(grid, tmp_path):
    runs = runs_of(grid, tmp_path, GIVEN)
    assert [(run.arm, run.seed) for run in runs] == [(arm, seed) for seed in (1, 2) for arm in ("ctc", "skd", "kd")]
    kd = runs[5]
    assert f"+criterion.teacher_path={tmp_path}/tiny/ctc/seed2/checkpoints/checkpoint_best.pt" in kd.train
    assert {"common.seed=2", "optimization.max_update=30", "--config-name", "hubert_mini"} <= set(kd.train)
    assert {"~criterion.tau", "model.student_layers=[]", "model.keep_layers=2"} <= set(kd.train)
    assert {"task.data=/data", "model.w2v_path=/w2v.pt"} <= set(kd.train)
    assert placed(runs[1].decode) == [("valid", 4), ("valid", 2), ("test", 4), ("test", 2)]
    command = decoding(runs[1], "test", 2).command
    assert {"decoding.layer=2", "dataset.gen_subset=test", "dataset.max_tokens=100000", "task.data=/data"} <= set(
        command
    )
    assert f"common_eval.path={runs[1].checkpoint}" in command
    assert len({run.folder for run in runs}) == 6
    # spikes: a student with its own full model, or with a separate teacher
    assert [placed(run.align) for run in runs[:3]] == [[], [("test", 2)], [("test", 2)]]
    command = runs[1].align[0].command
    assert "align.layer=2" in command and "dataset.gen_subset=test" in command
    assert not [part for part in command if "teacher_path" in part]
    assert f"align.teacher_path={runs[3].checkpoint}" in runs[5].align[0].command
    assert runs[5].teacher == runs[3].folder and runs[3].teacher is None
    assert [run.arm for run in runs_of(grid, tmp_path, GIVEN, ["skd"], [7])] == ["skd"]


def test_what_a_shell_makes_of_a_command(grid, tmp_path):
    """In the repository's folder it is the command that was run, whatever Hydra's folder is."""
    (run,) = runs_of(grid, tmp_path / "all runs", {**GIVEN, "task.data": Path("/my data")}, ["skd"], [1])
    text = shown(run.train)
    assert text.startswith("python -m fairseq_cli.hydra_train --config-dir config/finetune --config-name ")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {text}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed[0] == "python"
    printed[printed.index("config/finetune")] = str(REPOSITORY / "config" / "finetune")
    assert printed[1:] == list(run.train[1:])
    assert f"common.user_dir={REPOSITORY}/fairseq_skd" in printed and "task.data='/my data'" in printed


def test_seeds_of_an_arm(grid, tmp_path):
    whole = grid

    def with_seeds(*seeds):
        return replace(whole, arms={**whole.arms, "skd": replace(whole.arms["skd"], seeds=seeds)})

    grid = with_seeds(2)
    runs = [(run.arm, run.seed) for run in runs_of(grid, tmp_path, GIVEN)]
    assert runs == [("ctc", 1), ("kd", 1), ("ctc", 2), ("skd", 2), ("kd", 2)]
    assert ("skd", 1) in [(run.arm, run.seed) for run in runs_of(grid, tmp_path, GIVEN, seeds=[1])]
    grid = with_seeds(2, 7)  # a seed that the grid lacks
    assert [run.seed for run in runs_of(grid, tmp_path, GIVEN, ["skd"])] == [2, 7]


def test_tries_are_short_runs_on_the_first_subset(grid, tmp_path):
    runs = runs_of(grid.short_tries(), tmp_path, GIVEN)
    assert [(run.arm, run.seed) for run in runs] == [("skd-0.1", 1), ("skd-1.0", 1)]
    assert {"criterion.kd_weight=1.0", "optimization.max_epoch=1", "optimization.max_update=30"} <= set(runs[1].train)
    assert placed(runs[1].decode) == [("valid", 4), ("valid", 2)]
    assert "criterion.kd_weight=1.0" not in runs_of(grid, tmp_path, GIVEN)[1].train


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("needs: ctc", "needs: guide", "arm kd needs guide, which is not an arm above it: move that arm up"),
        ("    needs: ctc\n", "", "arm kd has .teacher. but no teacher: name the teacher's arm with needs"),
        ("exits: [4],", "exits: [4], lr: 1,", "arm ctc has the unknown key lr"),
        ("seeds: [1, 2]", "seeds: [-1]", "seeds is .-1., it must be a list of different whole numbers, 0 or more"),
        ("exits: [4],", "exits: [4], seeds: [1, -1],", "arm ctc: seeds is .1, -1., it must be a list of"),
        ("exits: [4],", "exits: 4,", "arm ctc: exits is 4, it must be a list of different whole numbers"),
        ("exits: [4],", "", "arm ctc has no exits"),
        ("config: hubert_mini", "config: hubert_mni", "config is hubert_mni, it must be the name of a YAML in"),
        (
            '{exits: [4], set: {"model.student_layers": "[]", checkpoint.best_checkpoint_metric: wer}}',
            "",
            "arm ctc has no exits",
        ),
        ("kd_weight: [0.1, 1.0]", "kd_weight: [0.1], criterion.tau: [0.1]", "arm skd: tries is .* one key and a list"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "seeds is .1, 1., it must be a list of different whole numbers"),
        ("seeds: [1, 2]", "seeds: [a]", "seeds is .*, it must be a list of different whole numbers"),
        ("subsets: [valid, test]", "subsets: test", "subsets is test, it must be a list of names"),
        ("common: {optimization.max_update: 30}", "common:", "common is None, it must be a mapping"),
        (
            "worse: kd 2",
            "worse: kd 4",
            "the claim the student wins: worse is 'kd 4', give an arm and an exit of the grid",
        ),
        ("worse: kd 2", "worst: kd 2", "must have claim, better and worse"),
        ("worse: kd 2", "worse: kd 2, rate: ter", "rate must be one of wer, cer, spikes"),
        ("worse: kd 2", "worse: kd 2, rate: [wer]", "rate must be one of wer, cer, spikes"),
        ("worse: kd 2", "worse: kd 2, margin: .nan", "margin a number"),
        ("worse: kd 2", "worse: kd 2, margin: true", "margin a number"),
        ("worse: kd 2", "worse: skd 4, rate: spikes", "'skd 4' has no teacher to compare spikes with"),
        ("corpus: tiny", "", "must have exactly the keys .*: unknown or missing is corpus"),
        ("corpus: tiny", "corpus: ../tiny", "corpus is ../tiny, it must be a name without a slash"),
        ("  kd:", "  k/d:", "arm k/d: its name is k/d, it must be a name without a slash"),
        ("  kd:", "  skd:", "is not YAML: skd is given twice .*line 10"),
        ("corpus: tiny", "corpus: [", "is not YAML"),
        ("corpus: tiny", "corpus: t\N{LATIN SMALL LETTER I WITH DIAERESIS}ny", "is not YAML"),
    ],
)
def test_a_wrong_grid_gets_a_sentence(tmp_path, old, new, sentence):
    assert old in GRID
    (tmp_path / "grid.yaml").write_text(GRID.replace(old, new, 1), encoding="latin-1")
    with pytest.raises(UserError, match=f"^grid .*{sentence}"):
        read_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_a_shipped_grid_composes(tmp_path, path):
    """Every arm sets only keys that its configuration has."""
    grid = read_grid(path)
    for run in runs_of(grid, tmp_path, GIVEN, seeds=[1]):
        name = run.train[run.train.index("--config-name") + 1]
        overrides = list(run.train[run.train.index(name) + 1 :])
        added = {override.partition("=")[0] for override in overrides if override.startswith("+")}
        assert added <= {"+criterion.method", "+criterion.teacher_path"}  # keys of kd_ctc, not in hubert_mini
        compose(REPOSITORY / "config" / "finetune", name, [o for o in overrides if not o.startswith("hydra.")])
        for command in (step.command for step in run.decode):
            compose(REPOSITORY / "config" / "decode", "viterbi", list(command[command.index("viterbi") + 1 :]))
        for command in (step.command for step in run.align):
            AlignSettings.read(
                to_container(
                    compose(REPOSITORY / "config" / "align", "align", list(command[command.index("align") + 1 :]))
                )
            )


def test_decoding_is_told_where_the_data_are(grid, tmp_path):
    given = {**GIVEN, "task.label_dir": "/labels", "common.cpu": "true", "optimization.lr": "[1]"}
    run = runs_of(grid, tmp_path, given)[1]
    for step in (decoding(run, "test", 2), *run.align):
        assert step.command[-3:] == ("task.data=/data", "task.label_dir=/labels", "common.cpu=true")


def test_the_data_of_a_run(tmp_path):
    settings = {"task.data": tmp_path, "task.labels": "[spm]", "dataset.train_subset": "train_10h", "lr": 1}
    data = Data.of(settings)
    names = [file.relative_to(tmp_path).as_posix() for file in data.training_files()]
    assert names == ["train_10h.tsv", "valid.tsv", "train_10h.spm", "valid.spm", "dict.spm.txt"]
    apart = Data.of({"task.data": tmp_path, "task.label_dir": tmp_path / "labels"})
    assert [file.relative_to(tmp_path).as_posix() for file in apart.files("test")] == ["test.tsv", "labels/test.ltr"]


def test_models_of_a_grid(grid):
    assert [str(model) for model in grid.models] == ["ctc 4", "skd 4", "skd 2", "kd 2"]
    assert [grid.arms[name].aligned for name in grid.arms] == [(), (2,), (2,)]
