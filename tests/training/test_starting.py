"""Checkpoints for a start or a resume: rows of the CTC heads, refusals, the trainer's state."""

import argparse
import doctest
import logging
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc, heads
from fairseq_skd.training.starting import check_save_dir, check_start, read_state
from tests.builders import CtcTask, batch, letter_dictionary, model_config, write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.training.trainers import batches, build_trainer

HEADS = ("w2v_encoder.proj", "student_heads.2.proj")
SAMPLE = batch([1.2, 0.8], ["GO ON", "A"])["net_input"]
CRITERION = "SkdCtcCriterion"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("starting")


@pytest.fixture(scope="module")
def pretrained(folder):
    return write_pretrained(folder / "hubert.pt", seed=5)


@pytest.fixture(scope="module")
def checkpoint(folder) -> Path:
    """A fine-tuned checkpoint with the state of its training."""
    path = write_fine_tuned(folder / "checkpoint_last.pt")
    state = torch.load(path, weights_only=True)
    state["optimizer_history"] = [
        {"criterion_name": CRITERION, "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 7}
    ]
    state["extra_state"] = {"train_iterator": {"epoch": 3, "iterations_in_epoch": 0}}
    state["last_optimizer_state"] = {"state": {}, "param_groups": []}
    torch.save(state, path)
    return path


def changed(checkpoint: Path, name: str, **parts) -> Path:
    """Copy a checkpoint with parts replaced; None removes a part."""
    state = torch.load(checkpoint, weights_only=True)
    state.update(parts)
    path = checkpoint.with_name(name)
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


def dictionary_of(symbols) -> Dictionary:
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


def model_of(pretrained: Path, dictionary: Dictionary, **changes) -> SkdCtc:
    task = CtcTask()
    task.target_dictionary = dictionary
    torch.manual_seed(11)
    return SkdCtc.build_model(model_config(pretrained, **changes), task).eval()


def started(checkpoint: Path, pretrained: Path, dictionary: Dictionary, criterion: str | None = None) -> SkdCtc:
    model = model_of(pretrained, dictionary)
    state = read_state(checkpoint, model, dictionary, criterion)
    model.load_state_dict(state["model"], strict=True)
    return model


@pytest.mark.faults
def test_symbols_in_another_order_are_mapped(checkpoint, pretrained, caplog):
    """F1: every symbol keeps its logits, at every exit."""
    letters = letter_dictionary().symbols[4:]
    dictionary = dictionary_of(letters[::-1])
    original = started(checkpoint, pretrained, letter_dictionary())(**SAMPLE)["exit_logits"]
    with caplog.at_level(logging.INFO):
        found = started(checkpoint, pretrained, dictionary)(**SAMPLE)["exit_logits"]
    assert f"{checkpoint}: symbols of the CTC heads: 32 mapped, 0 new, 0 dropped" in caplog.text
    order = [letter_dictionary().index(symbol) for symbol in dictionary.symbols]
    assert order != list(range(32))
    for layer in (4, 2):
        assert torch.equal(found[layer], original[layer][..., order])


@pytest.mark.faults
@pytest.mark.slow
def test_new_and_dropped_symbols(checkpoint, pretrained, caplog):
    """F9: symbols that stay keep their logits, new symbols start as in a fresh head."""
    letters = letter_dictionary().symbols[4:]
    dictionary = dictionary_of(["Ä", *letters[:-2], "Ö"])  # without Q and Z
    original = started(checkpoint, pretrained, letter_dictionary())(**SAMPLE)["exit_logits"]
    with caplog.at_level(logging.INFO):
        model = started(checkpoint, pretrained, dictionary)
    assert "30 mapped, 2 new (Ä, Ö), 2 dropped (Q, Z)" in caplog.text
    found, fresh = model(**SAMPLE)["exit_logits"], model_of(pretrained, dictionary).state_dict()
    kept = [index for index, symbol in enumerate(dictionary.symbols) if symbol not in "ÄÖ"]
    rows = [letter_dictionary().index(dictionary.symbols[index]) for index in kept]
    for layer, head in zip((4, 2), HEADS, strict=True):
        assert torch.equal(found[layer][..., kept], original[layer][..., rows])
        new = [dictionary.index("Ä"), dictionary.index("Ö")]
        assert torch.equal(model.state_dict()[f"{head}.weight"][new], fresh[f"{head}.weight"][new])
        assert torch.equal(model.state_dict()[f"{head}.bias"][new], torch.zeros(2))


@pytest.mark.faults
def test_many_new_symbols_are_not_all_named(checkpoint, pretrained, caplog):
    with caplog.at_level(logging.INFO):
        started(checkpoint, pretrained, dictionary_of([f"{place:02}" for place in range(40)]))
    assert "4 mapped, 40 new (00, 01, 02, 03, 04, ...), 28 dropped (|, E, T, A, O, ...)" in caplog.text


@pytest.mark.faults
def test_a_resume_needs_the_same_dictionary(checkpoint, pretrained):
    """F2: the first index that differs, and both symbols."""
    letters = letter_dictionary().symbols[4:]
    assert started(checkpoint, pretrained, letter_dictionary(), CRITERION)
    sentence = (
        rf"^checkpoint {checkpoint} was trained with another dictionary \(at index 5 the checkpoint has 'E', the "
        rf"dictionary of task\.data has 'T'\): resume with its own dictionary, or, to start a new training"
    )
    with pytest.raises(UserError, match=sentence):
        started(checkpoint, pretrained, dictionary_of(["|", "T", "E", *letters[3:]]), CRITERION)
    with pytest.raises(UserError, match=r"at index 32 the checkpoint has no symbol, the dictionary of .* has 'Ä'"):
        started(checkpoint, pretrained, dictionary_of([*letters, "Ä"]), CRITERION)


@pytest.mark.faults
def test_a_checkpoint_without_a_dictionary(checkpoint, pretrained, caplog):
    """With the same number of symbols it starts, with a warning; otherwise it is refused."""
    bare = changed(checkpoint, "bare.pt", task_state={})
    original = started(checkpoint, pretrained, letter_dictionary())(**SAMPLE)["encoder_out"]
    with caplog.at_level(logging.WARNING):
        found = started(bare, pretrained, letter_dictionary())(**SAMPLE)["encoder_out"]
    assert torch.equal(found, original)
    assert f"{bare} holds no dictionary: its 32 symbols are assumed to be the symbols of task.data" in caplog.text
    with pytest.raises(UserError, match=r"holds no dictionary and its CTC head has 32 symbols, .* task\.data has 9:"):
        started(bare, pretrained, dictionary_of("ABCDE"))


@pytest.mark.faults
def test_an_old_style_checkpoint_starts(checkpoint, pretrained, caplog):
    """F10: the layout of published wav2vec 2.0 models: nested args and no dictionary."""
    state = torch.load(checkpoint, weights_only=True)
    weights = {name: tensor for name, tensor in state["model"].items() if not name.startswith("student_heads")}
    args = argparse.Namespace(
        arch="wav2vec_ctc", w2v_args=argparse.Namespace(arch="wav2vec2", no_progress_bar=True), no_progress_bar=True
    )
    history = [{"criterion_name": "CtcCriterion", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}}]
    parts = {"args": args, "model": weights, "optimizer_history": history}
    path = changed(checkpoint, "old.pt", cfg=None, task_state=None, extra_state={"epoch": 2, "val_loss": 1.0}, **parts)
    path = changed(path, "old.pt", extra_state={"epoch": 2, "batch_offset": 0, "val_loss": 1.0})
    expected = started(checkpoint, pretrained, letter_dictionary())(**SAMPLE)["exit_logits"][4]
    with caplog.at_level(logging.INFO):
        found = started(path, pretrained, letter_dictionary())(**SAMPLE)["exit_logits"][4]
    assert torch.equal(found, expected)
    assert "the checkpoint has no head for student layers 2: they start untrained" in caplog.text


@pytest.mark.faults
def test_a_file_of_only_weights_starts_but_does_not_resume(checkpoint, pretrained):
    bare = changed(checkpoint, "weights.pt", optimizer_history=None, extra_state=None)
    state = read_state(bare, model_of(pretrained, letter_dictionary()), letter_dictionary(), None)
    assert state["extra_state"]["train_iterator"]["epoch"] == 1
    with pytest.raises(UserError, match="holds only weights and cannot be resumed: to start a new training"):
        started(bare, pretrained, letter_dictionary(), CRITERION)


@pytest.mark.faults
def test_a_start_counts_from_the_first_update(checkpoint, pretrained):
    """fairseq gives the model the updates of the old run, which would set the first alpha."""
    model = model_of(pretrained, letter_dictionary())
    state = read_state(checkpoint, model, letter_dictionary(), None)
    assert state["optimizer_history"][-1]["num_updates"] == 0
    assert read_state(checkpoint, model, letter_dictionary(), CRITERION)["optimizer_history"][-1]["num_updates"] == 7


@pytest.mark.faults
def test_a_resume_needs_the_state_of_the_optimizer(checkpoint, pretrained):
    """With checkpoint.no_save_optimizer_state, fairseq silently counts from update 0 again."""
    bare = changed(checkpoint, "no_state.pt", last_optimizer_state=None)
    with pytest.raises(
        UserError, match=r"no_save_optimizer_state\) and cannot be resumed: to start a new training from"
    ):
        started(bare, pretrained, letter_dictionary(), CRITERION)
    started(bare, pretrained, letter_dictionary())


@pytest.mark.faults
@pytest.mark.parametrize("students", [[], [3], [1, 2]])
def test_a_resume_needs_the_same_students(checkpoint, pretrained, students):
    """A head took the optimizer's state of another head, or torch failed on parameter groups."""
    model = model_of(pretrained, letter_dictionary(), student_layers=students)
    with pytest.raises(UserError) as refused:
        read_state(checkpoint, model, letter_dictionary(), CRITERION)
    assert str(refused.value) == (
        f"checkpoint {checkpoint} was trained with model.student_layers=[2], but this run has {students}: to start a "
        f"new training from its weights, give it to checkpoint.finetune_from_model in another checkpoint.save_dir"
    )
    read_state(checkpoint, model, letter_dictionary(), None)


@pytest.mark.faults
def test_a_resume_needs_the_same_criterion(checkpoint, pretrained):
    with pytest.raises(
        UserError, match="trained with SkdCtcCriterion, but this run has KdCtcCriterion: use that criterion, or, to"
    ):
        started(checkpoint, pretrained, letter_dictionary(), "KdCtcCriterion")


def saved(trainer: Trainer, folder: Path) -> str:
    """Train one update and save the checkpoint."""
    trainer.train_step(batches(trainer)[:1])
    trainer.consolidate_optimizer()
    path = str(folder / "saved.pt")
    trainer.save_checkpoint(path, {"train_iterator": {"epoch": 1, "iterations_in_epoch": 1}, "val_loss": 1.0})
    return path


def validated(trainer: Trainer) -> list[dict[str, float]]:
    """Return losses and error rates of each validation batch."""
    names = ("loss", "ctc_teacher", "ctc_student", "wer", "uer", "student_wer", "student_uer")
    return [{name: trainer.valid_step(batch)[name] for name in names} for batch in batches(trainer, "valid")]


@pytest.mark.faults
@pytest.mark.slow
def test_letters_in_another_order_in_fairseqs_trainer(tmp_path):
    """F1, F2: with ``reset_optimizer`` it starts at the checkpoint's losses, else it is refused."""
    first = build_trainer(tmp_path)
    path, expected = saved(first, tmp_path), validated(first)
    letters = letter_dictionary().symbols[4:]
    (tmp_path / "data" / "dict.ltr.txt").write_text("".join(f"{letter} 1\n" for letter in letters[::-1]))
    resets = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
    started = build_trainer(tmp_path, f"checkpoint.restore_file={path}", *(f"+checkpoint.{key}=true" for key in resets))
    checkpoint_utils.load_checkpoint(started.cfg.checkpoint, started)
    assert started.get_num_updates() == started.get_model().num_updates == 0
    for found, wanted in zip(validated(started), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    resumed = build_trainer(tmp_path, f"checkpoint.restore_file={path}")
    with pytest.raises(UserError, match=r"another dictionary \(at index 4 the checkpoint has '\|', .* has 'Z'\)"):
        checkpoint_utils.load_checkpoint(resumed.cfg.checkpoint, resumed)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["common.bf16=true"], "FairseqAdam vs FP16Optimizer"),
        (["model.freeze_regex=.*layers.0.*"], "loaded state dict contains a parameter group that doesn't match"),
    ],
)
@pytest.mark.slow
def test_a_resume_needs_the_same_optimizer(tmp_path, overrides, reason):
    """An AssertionError of fairseq, or a ValueError of torch, after the checkpoint was read."""
    file = saved(build_trainer(tmp_path), tmp_path)
    with pytest.raises(UserError, match=rf"^checkpoint {file} has the state of another optimizer \({reason}"):
        build_trainer(tmp_path, *overrides).load_checkpoint(file)
    build_trainer(tmp_path, *overrides).load_checkpoint(file, reset_optimizer=True)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exp_avg": torch.zeros(7, 3)}, "is damaged: its last_optimizer_state does not fit the parameters"),
        ({"exp_avg": None}, "is damaged: its last_optimizer_state does not fit the parameters"),
        ({"exp_avg_sq": torch.tensor(float("nan"))}, "exp_avg_sq holds NaN or Inf"),
    ],
    ids=["shape", "missing", "nan"],
)
@pytest.mark.slow
def test_the_moments_of_an_optimizer(tmp_path, change, words):
    """X12: a traceback in the first update, or the wrong advice to leave out its audio."""
    file = saved(build_trainer(tmp_path), tmp_path)
    build_trainer(tmp_path).load_checkpoint(file)
    whole = torch.load(file, weights_only=False)
    states = whole["last_optimizer_state"]["state"]
    state = states[max(states)]
    for name, value in change.items():
        if value is None:
            del state[name]
        else:
            state[name] = value.expand_as(state[name]).contiguous() if value.dim() == 0 else value
    torch.save(whole, file)
    with pytest.raises(UserError, match=words):
        build_trainer(tmp_path).load_checkpoint(file)


@pytest.mark.faults
def test_checkpoints_that_do_not_fit(checkpoint, pretrained, folder):
    with pytest.raises(UserError, match=r"hubert\.pt has no CTC head, so it is not fine-tuned: set model\.w2v_path"):
        started(pretrained, pretrained, letter_dictionary())
    wide = write_pretrained(folder / "wide.pt", encoder_embed_dim=64)
    with pytest.raises(UserError, match=r"does not fit the model: \d+ tensors differ, .*: set model\.w2v_path to"):
        started(checkpoint, wide, letter_dictionary())
    damaged = changed(checkpoint, "damaged.pt", task_state={"target_dictionary": dictionary_of("AB")})
    with pytest.raises(UserError, match="its dictionary does not fit its CTC head of 32 symbols"):
        started(damaged, pretrained, letter_dictionary())
    shallow = model_of(write_pretrained(folder / "shallow.pt", encoder_layers=3), letter_dictionary())
    with pytest.raises(UserError, match="has 4 layers but the model has 3: set model.w2v_path to the encoder that"):
        read_state(checkpoint, shallow, letter_dictionary(), None)
    pruned = model_of(pretrained, letter_dictionary(), keep_layers=3)
    with pytest.raises(UserError, match=r"was trained with 4 layers, but model\.keep_layers=3: to start a"):
        read_state(checkpoint, pruned, letter_dictionary(), CRITERION)


@pytest.mark.faults
def test_weights_that_are_not_finite(checkpoint, pretrained):
    """The error names checkpoint and tensor."""
    weights = torch.load(checkpoint, weights_only=True)["model"]
    weights["w2v_encoder.proj.bias"][3] = float("nan")
    damaged = changed(checkpoint, "nan.pt", model=weights)
    for criterion in (None, CRITERION):
        with pytest.raises(UserError, match=rf"^checkpoint {damaged}: w2v_encoder\.proj\.bias holds NaN or Inf"):
            started(damaged, pretrained, letter_dictionary(), criterion)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"restore_file": "/none.pt"}, r"^checkpoint\.restore_file=/none\.pt does not exist: give the absolute path"),
        (
            {"restore_file": "none.pt"},
            r"^checkpoint\.restore_file=none\.pt does not exist in /.*, where Hydra runs this: give the absolute path",
        ),
        ({"finetune_from_model": "/none.pt"}, r"^checkpoint\.finetune_from_model=/none\.pt does not exist: give "),
        ({"finetune_from_model": "/"}, r"^checkpoint\.finetune_from_model=/ is a folder: give a checkpoint in it"),
        ({"continue_once": "/none.pt"}, r"^checkpoint\.continue_once=/none\.pt does not exist: give the absolute "),
        (
            {"finetune_from_model": "/a.pt", "restore_file": "/b.pt"},
            r"a\.pt and checkpoint\.restore_file=/b\.pt exclude",
        ),
        ({"finetune_from_model": "/a.pt", "reset_meters": True}, r"^checkpoint\.reset_meters=true does nothing with"),
    ],
)
def test_a_start_file_that_is_not_there(tmp_path, keys, sentence):
    """fairseq silently trains from the pretrained weights if ``restore_file`` is missing."""
    cfg = OmegaConf.structured(CheckpointConfig(save_dir=str(tmp_path), **keys))
    with pytest.raises(UserError, match=sentence):
        check_start(OmegaConf.create({"checkpoint": cfg}))


@pytest.mark.faults
def test_a_last_checkpoint_that_is_a_broken_link(tmp_path):
    """The training silently started again and overwrote the link."""
    last = tmp_path / "checkpoint_last.pt"
    cfg = OmegaConf.create({"checkpoint": OmegaConf.structured(CheckpointConfig(save_dir=str(tmp_path)))})
    last.symlink_to(tmp_path / "moved.pt")
    with pytest.raises(UserError, match=rf"^{last} is a broken link, so no training can resume from it: remove it, or"):
        check_start(cfg)
    (tmp_path / "moved.pt").touch()
    check_start(cfg)
    last.unlink()
    last.mkdir()
    with pytest.raises(UserError, match=rf"^{last} is a folder, so no"):
        check_start(cfg)


def test_a_start_file_is_not_needed_once_the_run_has_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint_last.pt").touch()
    cfg = OmegaConf.structured(CheckpointConfig(save_dir=str(tmp_path), finetune_from_model="/none.pt"))
    check_start(OmegaConf.create({"checkpoint": cfg}))


def test_a_folder_for_checkpoints_that_cannot_be_created(tmp_path):
    """fairseq ended in the traceback of an OSError."""
    (tmp_path / "file").touch()
    cfg = OmegaConf.create({"checkpoint": {"save_dir": str(tmp_path / "file" / "run")}})
    with pytest.raises(
        UserError, match=r"^checkpoint\.save_dir=.*/file/run cannot be created \(Not a directory\): give another"
    ):
        check_save_dir(cfg)
    cfg.checkpoint.save_dir = str(tmp_path / "new" / "run")
    check_save_dir(cfg)
    assert (tmp_path / "new" / "run").is_dir()


def test_the_examples() -> None:
    found = doctest.testmod(heads)
    assert (found.failed, found.attempted > 0) == (0, True)


HISTORY = {"criterion_name": CRITERION, "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 7}
METER = ("loss", "AverageMeter", {"val": 1.0, "sum": 2.0, "count": 2})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"optimizer_history": []}, "holds only weights and cannot be resumed"),
        ({"optimizer_history": ["x"]}, "holds only weights and cannot be resumed"),
        ({"optimizer_history": ["x", HISTORY]}, "its optimizer_history has to be a list of dicts"),
        (
            {"optimizer_history": [{**HISTORY, "num_updates": "7"}]},
            "num_updates='7' has to be an integer",
        ),
        ({"optimizer_history": [{**HISTORY, "num_updates": 10**18}]}, "num_updates=1000000000000000000 has to be"),
        ({"optimizer_history": [{**HISTORY, "lr_scheduler_state": 3}]}, "lr_scheduler_state=3 has to be"),
        ({"extra_state": [1]}, "its extra_state has to be a dict"),
        ({"extra_state": {"train_iterator": 3}}, "its extra_state.train_iterator=3 has to be a dict"),
        ({"extra_state": {"train_iterator": {}, "epoch": "x"}}, "extra_state.epoch='x' has to be"),
        (
            {"extra_state": {"train_iterator": {"epoch": -3}}},
            "its extra_state.train_iterator.epoch=-3 has to be an integer, at least 0 and at most 1,0",
        ),
        ({"extra_state": {"best": "x"}}, "its extra_state.best='x' has to be a number"),
        ({"extra_state": {"metrics": {"a": [(10, *METER), (5, *METER)]}}}, "extra_state.metrics has to be meters"),
        ({"extra_state": {"metrics": {"a": [(10, "x", "OrderedDict", {})]}}}, "extra_state.metrics has to be meters"),
        ({"last_optimizer_state": [1]}, "its last_optimizer_state has to be a dict"),
        ({"last_optimizer_state": {"param_groups": 3}}, "last_optimizer_state.param_groups=3 has to be"),
        ({"last_optimizer_state": {"param_groups": [], "state": {0: 1}}}, "last_optimizer_state.state has to be"),
        (
            {"last_optimizer_state": {"param_groups": [{"params": [0], "betas": [[[0.9]]]}], "state": {}}},
            "last_optimizer_state.param_groups has to be",
        ),
        ({"optimizer_history": [{**HISTORY, "criterion_name": [CRITERION]}]}, "holds only weights"),
        ({"optimizer_history": [{**HISTORY, "optimizer_name": ["x"]}]}, "optimizer_history.optimizer_name has to be"),
        ({"task_state": torch.ones(2, 2)}, "is damaged: its task_state holds no dictionary"),
        ({"task_state": {"target_dictionary": Dictionary.__new__(Dictionary)}}, "holds no dictionary"),
        ({"task_state": [1]}, "is damaged: its task_state holds no dictionary"),
        ({"task_state": {"target_dictionary": "abc"}}, "is damaged: its task_state holds no dictionary"),
        ({"model": {"w2v_encoder.proj.weight": torch.tensor(1.0)}}, "has no CTC head"),
        (
            {"model": {"w2v_encoder.proj.weight": 3}},
            "its 'model' holds 'w2v_encoder.proj.weight', which is not the",
        ),
    ],
)
@pytest.mark.slow
def test_a_damaged_state_of_a_training(checkpoint, pretrained, parts, words):
    """X12: each ended in a traceback, except epoch -3, which was trained."""
    path = changed(checkpoint, "damaged.pt", **parts)
    with pytest.raises(UserError) as refused:
        started(path, pretrained, letter_dictionary(), CRITERION)
    assert str(refused.value).startswith(f"checkpoint {path}")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.faults
def test_a_resume_before_the_first_validation(checkpoint, pretrained):
    """reduce_lr_on_plateau saves best=inf until then; the checkpoint was refused as damaged."""
    history = [{**HISTORY, "lr_scheduler_state": {"best": float("inf"), "last_epoch": 0}}]
    path = changed(checkpoint, "plateau.pt", optimizer_history=history)
    state = read_state(path, model_of(pretrained, letter_dictionary()), letter_dictionary(), CRITERION)
    assert state["optimizer_history"][-1]["lr_scheduler_state"] == {"best": float("inf"), "last_epoch": 0}
    history = [{**HISTORY, "lr_scheduler_state": {"best": float("nan"), "last_epoch": 0}}]
    with pytest.raises(UserError, match="lr_scheduler_state.best=nan has to be finite"):
        started(changed(checkpoint, "nan.pt", optimizer_history=history), pretrained, letter_dictionary(), CRITERION)


def test_the_state_of_a_training_reaches_the_trainer(checkpoint, pretrained):
    extra = {
        "epoch": 3,
        "train_iterator": {"epoch": 3, "version": 2, "iterations_in_epoch": 4, "shuffle": True, "len": 9},
        "metrics": {"default": [(10, *METER)]},
        "previous_training_time": torch.tensor(2.5),  # a tensor, as several workers save it
        "best": 12.5,
        "val_loss": 12.5,
    }
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    history = [{**HISTORY, "num_updates": 3}, HISTORY]
    parts = {"extra_state": extra, "last_optimizer_state": optimizer, "optimizer_history": history}
    path = changed(checkpoint, "whole.pt", **parts)
    state = read_state(path, model_of(pretrained, letter_dictionary()), letter_dictionary(), CRITERION)
    assert state["extra_state"] == {**extra, "previous_training_time": 2.5}
    assert state["optimizer_history"] == history
    assert state["last_optimizer_state"]["param_groups"] == optimizer["param_groups"]
