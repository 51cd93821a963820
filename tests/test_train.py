"""Fine-tuning with a recipe by its name: what the command becomes, and what it says before."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import fairseq
import hydra
import pytest

from fairseq_skd import cli, train
from fairseq_skd.errors import UserError, run_command

pytestmark = pytest.mark.slow  # composing a YAML twice takes a second

PACKAGE = Path(train.__file__).resolve().parent
FINETUNE = PACKAGE.parent / "config" / "finetune"
EXAMPLES = Path(fairseq.__file__).parent / "examples"
USER_DIR = f"common.user_dir={PACKAGE}"
CPU = "common.fp16=false, which is the same batch on the CPU, or take hubert_mini for a small encoder"
WORLD = "distributed_training.distributed_world_size"
PORT = ["distributed_training.distributed_port=29500"]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Call the command in a folder of its own; returns the words after fairseq-hydra-train.

    A shipped recipe needs two keys: they are given if the arguments lack them, and not returned.
    """
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: became.append(words))
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, required: Sequence[str] = ("task.data=/d", "model.w2v_path=/w")) -> list[str]:
        given = {word.partition("=")[0] for word in arguments}
        added = [word for word in required if not given & {word.partition("=")[0], "--config-dir"}]
        train.main([*arguments, *added])
        words = [word for word in became.pop() if word not in added]
        return words[words.index("--config-dir") :]

    return call


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda number: monkeypatch.setattr(train, "_gpus", lambda: number)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("words", [["hubert_mini", "common.seed=2"], ["hubert_mini.yaml", "common.seed=2"]])
def test_a_name_stands_for_yaml_and_user_dir(become, words: list[str]) -> None:
    assert become(*words) == [
        *("--config-dir", str(FINETUNE), "--config-name", "hubert_mini", USER_DIR, "common.seed=2")
    ]


def test_the_printed_command_is_what_runs(become, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through a real shell, with signs that the shell or Hydra would take as theirs."""
    folder = tmp_path / "it's a=b $HOME [1] é"
    words = become("hubert_mini", f"task.data={folder}", "model.w2v_path=my encoder.pt", "model.student_layers=[2]")
    (printed,) = capsys.readouterr().err.splitlines()
    echo = f"{shlex.quote(sys.executable)} -c 'import sys; print(*sys.argv[1:], sep=chr(10))'"
    through = subprocess.run(
        ["sh", "-c", f"{echo} {printed.partition(' ')[2]}"], capture_output=True, text=True, check=True
    )
    assert through.stdout.splitlines() == words
    config = cli.compose(FINETUNE, "hubert_mini", words[4:])
    assert config.task.data == str(folder)
    assert config.model.w2v_path == str(tmp_path / "my encoder.pt")
    assert '"model.w2v_path=' in printed  # not five quotes in a row


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("task.data=data", "task.data={here}/data"),
        ("task.data=~/data", "task.data={home}/data"),
        ("task.data=/a/b", "task.data=/a/b"),
        ("+criterion.teacher_path=t.pt", "+criterion.teacher_path={here}/t.pt"),
        ("checkpoint.restore_file=checkpoint_last.pt", "checkpoint.restore_file=checkpoint_last.pt"),
        ("checkpoint.restore_file=old.pt", "checkpoint.restore_file={here}/old.pt"),
        ("task.label_dir=null", "task.label_dir=null"),
        ("task.label_dir=${task.data}", "task.label_dir=${{task.data}}"),
        ("task.data='a b'", "task.data='{here}/a b'"),
        ('task.data="a b"', "task.data='{here}/a b'"),
        ("common.log_file=log", "common.log_file={here}/log"),
        ("task.data=it's", "task.data='{here}/it\\'s'"),
        ("model.w2v_path=a,b", "model.w2v_path='{here}/a,b'"),
        ("dataset.train_subset=train", "dataset.train_subset=train"),
    ],
)
def test_paths_start_in_the_current_folder(become, tmp_path, monkeypatch, typed: str, given: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert become("hubert_mini", typed)[-1] == given.format(here=tmp_path, home="/home/me")


def test_hydras_own_flags_pass(become, tmp_path: Path) -> None:
    assert become("hubert_mini", "--multirun", "common.seed=1,2", "model.w2v_path=a,b", "task.data=c")[-4:] == [
        *("common.seed=1,2", "model.w2v_path=a,b", f"task.data={tmp_path}/c", "--multirun")
    ]
    assert become("--cfg", "job", "hubert_base_100h")[-2:] == ["--cfg", "job"]
    if hasattr(hydra, "compose"):
        assert become("--cfg", "job", "hubert_base_100h", "--resolve")[-3:] == ["--cfg", "job", "--resolve"]
    else:
        assert (
            refusal(lambda: become("--cfg", "job", "hubert_mini", "--resolve"))
            == "--resolve needs Hydra 1.1 or later: leave it out"
        )
    assert become("-m", "hubert_base_100h", "hydra/launcher=submitit_slurm")[-2:] == [
        *("hydra/launcher=submitit_slurm", "--multirun")
    ]
    assert not list(tmp_path.iterdir())


def test_a_key_given_twice_and_a_needless_plus(become) -> None:
    assert become("hubert_mini", "common.fp16=true", "common.fp16=false")[5:] == [
        "common.fp16=true",
        "common.fp16=false",
    ]
    assert become("hubert_mini", "+criterion.tau=0.4", "+common.amp=false")[5:] == [
        "criterion.tau=0.4",
        "common.amp=false",
    ]


def test_what_every_training_needs(become, tmp_path: Path) -> None:
    words = ("hubert_mini", "checkpoint.save_dir=run")
    assert refusal(lambda: become(*words, required=["model.w2v_path=/w"])) == (
        "task.data is not set: give the folder with <split>.tsv and its labels"
    )
    for nothing in ([], ["model.w2v_path=null"], ["model.w2v_path="]):
        assert refusal(lambda given=nothing: become(*words, required=["task.data=/d", *given])) == (
            "model.w2v_path is not set: give a pretrained checkpoint or a Hugging Face folder"
        )
    assert not list(tmp_path.iterdir())
    assert become(*words, "--cfg", "job", required=[])
    start = "checkpoint.finetune_from_model=/models/ctc"  # its encoder is taken
    assert become(*words, start, required=["task.data=/d"])


def test_a_user_dir_that_is_given_wins(become, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("common:\n  user_dir: /my/dir\nmodel:\n  _name: x\n")
    (tmp_path / "none.yaml").write_text("model:\n  _name: x\n")
    assert become("hubert_mini", "common.user_dir=/mine")[4:] == ["common.user_dir=/mine"]
    assert become("--config-dir", ".", "own") == ["--config-dir", str(tmp_path), "--config-name", "own"]
    assert become("--config-dir", ".", "none")[4:] == [USER_DIR]


def test_the_log_lies_beside_the_checkpoints(become, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("hydra:\n  run:\n    dir: /my/logs\ncheckpoint:\n  save_dir: here\n")
    assert become("hubert_mini", "checkpoint.save_dir=a b")[5:] == [
        f"{key}='{tmp_path}/a b'" for key in ("checkpoint.save_dir", "hydra.run.dir")
    ]
    assert (tmp_path / "a b").is_dir()
    assert become("hubert_mini", "checkpoint.save_dir=a", "hydra.run.dir=b")[5:] == [
        *(f"checkpoint.save_dir={tmp_path}/a", f"hydra.run.dir={tmp_path}/b")
    ]
    assert become("--config-dir", ".", "own", "checkpoint.save_dir=c")[5:] == [f"checkpoint.save_dir={tmp_path}/c"]


def test_a_folder_that_cannot_be_made(become, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = (
        f"checkpoint.save_dir: {tmp_path}/file/x cannot be made (Not a directory); give a folder that can be writ"
    )
    assert refusal(lambda: become("hubert_mini", "checkpoint.save_dir=file/x")).startswith(sentence)


def test_keys_that_fairseq_knows_and_the_yaml_does_not(become) -> None:
    keys = ["checkpoint.keep_last_epochs=2", "optimization.stop_time_hours=1", "common.tensorboard_logdir=/tb"]
    keys += ["ema.store_ema=true", "~criterion.tau", "+criterion.method=guide", "distributed_training.device_id=0"]
    assert become("hubert_mini", *keys)[5:] == keys


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [],
            "give the name of a recipe first, as in python -m fairseq_skd.train hubert_mini; there are: ",
        ),
        (["common.seed=2", "hubert_mini"], "give the name of a recipe first, as in "),
        (["hubert_tiny"], "there is no recipe hubert_tiny; there are: hubert_base_100h, hubert_base_10h, "),
        (["hubert_mini", "wavlm_mini"], "wavlm_mini cannot be read: give a key and its value with = and no space"),
        (["hubert_mini", "common.seed", "=", "2"], "common.seed cannot be read: "),
        (["hubert_mini", "=2"], "=2 cannot be read: "),
        (
            ["hubert_mini", "model.layer=2"],
            "there is no key model.layer: model has student_layers, keep",
        ),
        (
            ["hubert_mini", "model.student_layers=[6,]"],
            "model.student_layers=[6,] cannot be read (no viable alternative at input '[6,]'): give a list as "
            "'model.student_layers=[1,2]'",
        ),
        (["hubert_mini", "optimizer.adam_betas=(0.9,0.98)"], "optimizer.adam_betas=(0.9,0.98) cannot be read (extr"),
        (
            ["hubert_mini", "model.student_layers=6"],
            "model.student_layers=6 cannot be used, it takes a list: give 'model.student_layers=[6]'",
        ),
        (
            ["hubert_mini", "optimization.lr=3e-4"],
            "optimization.lr=3e-4 cannot be used, it takes a list: give 'optimization.lr=[3e-4]'",
        ),
        (
            ["hubert_mini", "optimization.max_update=many"],
            "optimization.max_update=many cannot be used: Value 'many' ",
        ),
        (
            ["hubert_mini", "optimization.max_updates=5"],
            "there is no key optimization.max_updates: did you mean optimization.max_update? optimization has ",
        ),
        (
            ["hubert_mini", "+dataset.max_token=1"],
            "there is no key dataset.max_token: did you mean dataset.max_tokens? dataset has num_workers, ",
        ),
        (["hubert_mini", "student_layers=[6]"], "there is no key student_layers: did you mean model.student_layers?"),
        (["hubert_mini", "max_tokens_valid=1"], "there is no key max_tokens_valid: did you mean dataset.max_tokens_va"),
        (["hubert_mini", "modell=1"], "there is no key modell: the sections are: common, "),
        (
            ["hubert_mini", "task=audio_finetuning"],
            "task=audio_finetuning would replace the whole section task: set its keys, task.<key>=...",
        ),
        (["hubert_mini", "~common.amp"], "~common.amp would remove a key that fairseq needs: give it a value, common."),
        (["hubert_mini", f"{WORLD}=0"], f"{WORLD}=0 is out of range: set it to at least 1"),
        (["--config-dir", "no where", "x"], "there is no recipe x; {here}/no where has no YAML"),
    ],
)
def test_mistakes_are_told_in_one_sentence(become, tmp_path: Path, words: list[str], sentence: str) -> None:
    assert refusal(lambda: become(*words)).startswith(sentence.format(here=tmp_path))


def test_the_path_of_a_yaml_is_no_name(become, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").touch()
    assert refusal(lambda: become("./own.yaml")).endswith("; for your own YAML give --config-dir . own")


@pytest.mark.parametrize(
    ("recipe", "overrides", "there", "told"),
    [
        ("hubert_base_100h", [], 8, None),
        ("hubert_mini", [], 0, None),
        ("hubert_base_100h", [], 7, "=8 needs 8 GPUs, this machine has 7: give {world}=4 '{often}=[2]', which is the"),
        ("hubert_base_100h", [], 1, "=8 needs 8 GPUs, this machine has 1: give {world}=1 '{often}=[8]', which is the"),
        ("hubert_large_10h", [], 3, "=4 needs 4 GPUs, this machine has 3: give {world}=2 '{often}=[10]', which is "),
        ("hubert_base_100h", ["{world}=4"], 2, "=4 needs 4 GPUs, this machine has 2: give {world}=2 '{often}=[4]', "),
        ("hubert_base_100h", ["{often}=[3]"], 2, "=8 needs 8 GPUs, this machine has 2: give {world}=2 '{often}=[12]'"),
        ("hubert_base_100h", [], 0, "=8 needs 8 GPUs, this machine has none: give {world}=1 '{often}=[8]' " + CPU),
        ("hubert_base_100h", ["common.cpu=true"], 0, "=8 needs 8 GPUs, this machine has none: "),
        (
            "hubert_mini",
            ["{world}=2"],
            0,
            "=2 needs 2 GPUs, this machine has none: give {world}=1 '{often}=[1]', which",
        ),
        ("hubert_base_100h", ["distributed_training.distributed_no_spawn=true"], 0, None),
    ],
)
def test_gpus_that_are_not_there(become, gpus, recipe: str, overrides: list[str], there: int, told) -> None:
    names = {"world": WORLD, "often": "optimization.update_freq"}
    gpus(there)
    words = [recipe, *(override.format(**names) for override in overrides)]
    if told is None:
        assert become(*words)[3] == recipe
    else:
        assert refusal(lambda: become(*words)).startswith(f"{WORLD}{told.format(**names)}")


def test_a_yaml_that_leaves_the_batch_to_fairseq(become, gpus, tmp_path: Path, capsys) -> None:
    (tmp_path / "own.yaml").write_text("model:\n  _name: x\n")
    gpus(2)
    assert become("--config-dir", ".", "own", f"{WORLD}=2")[-1] == f"{WORLD}=2"
    assert len(capsys.readouterr().err.splitlines()) == 1
    told = refusal(lambda: become("--config-dir", ".", "own", f"{WORLD}=4", "optimization.update_freq=${own.freq}"))
    assert told == (
        f"{WORLD}=4 needs 4 GPUs, this machine has 2: give {WORLD}=2 'optimization.update_freq=[2]', which is the same "
        "batch"
    )


@pytest.mark.faults
@pytest.mark.parametrize("world", [1, 2])
def test_a_method_without_gpus_would_train_nothing(become, gpus, world: int) -> None:
    """X17: fairseq starts no process and ends with exit status 0."""
    words = ["hubert_mini", f"{WORLD}={world}", "distributed_training.distributed_init_method=tcp://localhost:9"]
    gpus(0)
    assert refusal(lambda: become(*words)) == (
        "distributed_training.distributed_init_method=tcp://localhost:9 starts one process per GPU and this machine "
        f"has none: leave it out and give {WORLD}=1, or start one command per rank with "
        "distributed_training.distributed_no_spawn=true"
    )
    gpus(1)
    assert become(*words)


@pytest.mark.parametrize(
    ("variables", "more", "world", "there", "told"),
    [
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, [], 4, 2, None),
        (
            {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            [],
            4,
            1,
            "=4 needs 2 GPUs on each machine, this machine has 1: ask",
        ),
        ({"SLURM_NNODES": "2"}, PORT, 8, 4, None),
        ({"SLURM_NNODES": "2"}, PORT, 8, 0, "=8 needs 4 GPUs on each machine, this machine has none: ask for more"),
        ({"SLURM_NNODES": "2"}, [], 8, 4, "=8 needs 8 GPUs, this machine has 4: give {port}=29500 to use all 2 mach"),
        ({"SLURM_NNODES": ""}, PORT, 8, 4, "=8 needs 8 GPUs, this machine has 4: give {world}=4 '"),
    ],
)
def test_several_machines(become, gpus, monkeypatch, variables, more: list[str], world: int, there: int, told) -> None:
    """Without distributed_port, fairseq starts all processes on one machine, also under Slurm."""
    gpus(there)
    if "WORLD_SIZE" in variables:
        variables = {"MASTER_ADDR": "localhost", "MASTER_PORT": "9", "RANK": "0", **variables}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = ["hubert_base_100h", f"{WORLD}={world}", *more]
    if told is None:
        assert become(*words)
    else:
        assert refusal(lambda: become(*words)).startswith(
            f"{WORLD}{told.format(world=WORLD, port=PORT[0].partition('=')[0])}"
        )


def test_another_batch_is_remarked_on(become, gpus, capsys: pytest.CaptureFixture[str]) -> None:
    gpus(2)
    become("hubert_base_100h", f"{WORLD}=2")
    remark, _ = capsys.readouterr().err.splitlines()
    assert remark == (
        "fairseq_skd.train: an update has 2 x dataset.max_tokens samples, in the recipe 8 x: "
        "'optimization.update_freq=[4]' keeps the recipe's"
    )
    for same in ("optimization.update_freq=[4]", "optimization.update_freq=[1]", "dataset.max_tokens=1000"):
        become("hubert_base_100h", f"{WORLD}=2", same)
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["hubert/config/finetune/base_10h", "wav2vec/config/finetuning/base_100h"])
def test_yaml_files_of_fairseq(become, gpus, name: str) -> None:
    gpus(2)
    folder, _, recipe = name.rpartition("/")
    words = become(
        "--config-dir", str(EXAMPLES / folder), recipe, "task.data=/d", "model.w2v_path=/w", "checkpoint.save_dir=c"
    )
    assert words[:5] == ["--config-dir", str(EXAMPLES / folder), "--config-name", recipe, USER_DIR]
    assert words[-1].startswith("hydra.run.dir=")


def test_without_the_script_it_is_a_module(become, monkeypatch, tmp_path: Path, capsys) -> None:
    (tmp_path / "python3").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert become("hubert_mini")
    assert capsys.readouterr().err.startswith(f"{tmp_path}/python3 -m fairseq_cli.hydra_train --config-dir ")
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    assert refusal(lambda: become("hubert_mini")).startswith("fairseq is not installed for this Python: ")


def test_the_script_by_its_path_where_a_shell_would_not_find_it(become, monkeypatch, tmp_path: Path, capsys) -> None:
    for name in ("python3", "fairseq-hydra-train"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    become("hubert_mini")
    assert capsys.readouterr().err.startswith(f"{tmp_path}/fairseq-hydra-train --config-dir ")


def test_the_end_is_a_sentence(become, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("fairseq_skd.train", lambda: become("nope")) == 2
    assert capsys.readouterr().err.startswith("fairseq_skd.train: there is no recipe nope; ")


def test_it_starts_without_fairseq_and_torch() -> None:
    """The command that follows takes seconds to import them."""
    code = "import sys, fairseq_skd.train; print(sorted({'fairseq', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout == "[]\n"
