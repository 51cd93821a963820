"""The check of the whole configuration: each mistake gets one sentence that names the key."""

import copy
import logging

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from fairseq_skd.cli import compose
from fairseq_skd.errors import UserError
from fairseq_skd.training.checks import check_composed, check_device
from tests.baselines import BASELINES
from tests.end_to_end.training import REPOSITORY

FINETUNE = REPOSITORY / "config" / "finetune"
GIVEN = ["common.user_dir=/u", "task.data=/d", "model.w2v_path=/w", "common.cpu=true"]
NO_KEYS = [f"~lr_scheduler.{key}" for key in ("phase_ratio", "hold_steps", "decay_steps", "init_lr_scale")]
SELF_KEYS = ("schedule", "tau", "alpha", "stop_gradient")
NO_KEYS += ["~lr_scheduler.warmup_steps", "~lr_scheduler.final_lr_scale"]


MINI = compose(FINETUNE, "hubert_mini", GIVEN)


def composed(*overrides: str):
    """Override hubert_mini as Hydra does (``key=value``, ``+key=value``, ``~key``), but faster."""
    removed = [override[1:].split(".") for override in overrides if override.startswith("~")]
    given = OmegaConf.from_dotlist([override.lstrip("+") for override in overrides if not override.startswith("~")])
    with open_dict(copy.deepcopy(MINI)) as config:
        for section, key in removed:
            del config[section][key]
        return OmegaConf.merge(config, given)


@pytest.mark.parametrize("baseline", [None, *BASELINES])
@pytest.mark.slow
def test_our_configurations_pass_without_a_warning(baseline, caplog):
    check_composed(compose(FINETUNE, "hubert_mini", [*GIVEN, *BASELINES.get(baseline, [])]))
    assert not caplog.records or all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["common.seed=-1"], "common.seed=-1 is out of range: it has to be at least 0 and at most 2,147,483,647"),
        (["common.seed=4294967295"], "common.seed=4294967295 is out of range"),
        (["++dataset.fixed_validation_seed=-5"], "dataset.fixed_validation_seed=-5 is out of range"),
        (["model.dropout=2"], "model.dropout=2.0 is out of range: it has to be at least 0 and below 1"),
        (["model.attention_dropout=.nan"], "model.attention_dropout=nan is out of range"),
        (["model.layerdrop=1"], "model.layerdrop=1.0 is out of range"),
        (["model.mask_length=0"], "model.mask_length=0 is out of range: it has to be at least 1"),
        (["model.feature_grad_mult=-1"], "model.feature_grad_mult=-1.0 is out of range"),
        (["model.freeze_regex=("], r"model.freeze_regex=\( is not a regular expression"),
        (["optimization.lr=[-1]"], r"optimization.lr=\[-1\.?0?\] is out of range: it has to be above 0"),
        (["optimization.lr=[0]"], "optimization.lr=.* is out of range"),
        (["optimization.lr=[]"], r"optimization.lr=\[\] is empty"),
        (["optimization.update_freq=[0]"], "optimization.update_freq=.0. is out of range"),
        (["optimization.clip_norm=-1"], "optimization.clip_norm=-1.0 is out of range"),
        (["optimization.max_epoch=-1"], "optimization.max_epoch=-1 is out of range"),
        (["optimization.max_update=-1"], "optimization.max_update=-1 is out of range"),
        (["optimizer.weight_decay=-0.1"], "optimizer.weight_decay=-0.1 is out of range"),
        (["optimizer.adam_eps=0"], "optimizer.adam_eps=0.0 is out of range: it has to be above 0"),
        (["optimizer.adam_betas=(0.9,1.5)"], r"optimizer.adam_betas=\(0.9,1.5\) is out of range"),
        (["optimizer.adam_betas=open"], "optimizer.adam_betas=open is out of range"),
        (["common.log_interval=0"], "common.log_interval=0 is out of range"),
        (["dataset.validate_interval=0"], "dataset.validate_interval=0 is out of range"),
        (["checkpoint.save_interval=0"], "checkpoint.save_interval=0 is out of range"),
        (["dataset.max_tokens=0"], "dataset.max_tokens=0 is out of range"),
        (["dataset.max_tokens=null"], "dataset.max_tokens and dataset.batch_size are both null"),
        (
            ["criterion.temperature=1e-30"],
            "criterion.temperature=1e-30 is out of range: it has to be at least 0.01 and at most 100",
        ),
        (["criterion.tau=0.5"], "criterion.tau=0.5 must be at least 0 and below 0.5"),
        (["criterion.kd_weight=-1"], "criterion.kd_weight=-1.0 must be finite and at least 0"),
        (["criterion.kd_warmup=2"], "criterion.kd_warmup=2.0 must lie between 0 and 1"),
        (["criterion.frames=some"], "criterion.frames=some is not known"),
    ],
)
@pytest.mark.slow
def test_numbers_out_of_range(overrides, sentence):
    """X13: each ended later in a traceback of fairseq, numpy or torch, or trained on silently."""
    with pytest.raises(UserError, match=f"^{sentence}"):
        check_composed(composed(*overrides))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["optimization.max_update=1"],
            "lr_scheduler tri_stage has no schedule for optimization.max_update=1 with "
            r"lr_scheduler.phase_ratio=\[0.1, 0.4, 0.5\], .*: give every phase at least one update$",
        ),
        (
            ["optimization.lr=[1e-3,5e-4]"],
            r"^optimization.lr=\[0.001, 0.0005\] has several rates, but lr_scheduler tri_stage takes one .*: give one "
            "number$",
        ),
        (["optimization.max_update=0"], "criterion.schedule=clamped_linear needs the length of the run"),
        (["lr_scheduler.phase_ratio=[0.1,0.4,0.4]"], "lr_scheduler tri_stage has no schedule .* must add up to 1"),
        (["lr_scheduler.phase_ratio=[0.5,0.5,0]"], "lr_scheduler tri_stage has no schedule"),
        (["lr_scheduler.phase_ratio=null"], "lr_scheduler tri_stage has no schedule"),
        (
            [*NO_KEYS, "lr_scheduler._name=polynomial_decay", "+lr_scheduler.total_num_update=0"],
            "lr_scheduler polynomial_decay has no schedule",
        ),
        (
            [*NO_KEYS, "lr_scheduler._name=cosine", "+lr_scheduler.warmup_updates=2000"],
            "lr_scheduler cosine has no schedule",
        ),
        (
            [*NO_KEYS, "lr_scheduler._name=cosine", "+lr_scheduler.warmup_updates=9", "++optimization.stop_min_lr=0"],
            "optimization.stop_min_lr=0.* would stop the run before its first update",
        ),
        (
            ["++optimization.stop_min_lr=1e-3"],
            "optimization.stop_min_lr=0.001 would stop the run before its first update, because the learning rate of "
            "lr_scheduler tri_stage starts at 8e-06: set it below that",
        ),
    ],
)
@pytest.mark.slow
def test_a_schedule_that_does_not_fit_the_run(overrides, sentence):
    """X13: an AssertionError or ZeroDivisionError after the model was built; with stop_min_lr, exit
    status 0 and no training.
    """
    with pytest.raises(UserError, match=sentence):
        check_composed(composed(*overrides))


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (["model.freeze_finetune_updates=2000"], "so only the heads are trained"),
        (["dataset.validate_after_updates=2001"], "so nothing is validated and only checkpoint_last.pt is written"),
        (
            ["lr_scheduler.phase_ratio=null", "lr_scheduler.warmup_steps=3000", "lr_scheduler.decay_steps=1000"],
            "the phases of lr_scheduler tri_stage last 4000 updates, but the run ends after "
            "optimization.max_update=2000",
        ),
        (
            [*NO_KEYS, "lr_scheduler._name=polynomial_decay", "+lr_scheduler.total_num_update=4000"],
            "the learning rate ends at 0.0004 instead of 0",
        ),
    ],
)
def test_a_run_that_ends_inside_a_phase_gets_a_warning(overrides, warning, caplog):
    """Not an error: a trial run, or a run with a frozen encoder, may want it."""
    check_composed(composed(*overrides))
    assert warning in caplog.text


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["checkpoint.best_checkpoint_metric=cer"],
            r"checkpoint.best_checkpoint_metric=cer is not logged by criterion skd_ctc with "
            r"model.student_layers=\[6\]: choose one of wer, uer, student_wer, student_uer, loss, ",
        ),
        (["model.student_layers=[]"], "best_checkpoint_metric=student_wer .*: choose one of wer, uer, loss, "),
        (
            ["model.student_layers=[3,6]", "checkpoint.best_checkpoint_metric=wer_5"],
            "best_checkpoint_metric=wer_5 .*choose one of .*wer_3, wer_6, ",
        ),
        (["checkpoint.best_checkpoint_metric=raw_wer"], "best_checkpoint_metric=raw_wer is not logged"),
        (["checkpoint.maximize_best_checkpoint_metric=true"], "would keep the checkpoint with the highest student_wer"),
    ],
)
@pytest.mark.slow
def test_the_metric_of_the_best_checkpoint(overrides, sentence):
    """F24: a KeyError after the first epoch with nothing saved; with maximize, silently the worst
    checkpoint.
    """
    with pytest.raises(UserError, match=sentence):
        check_composed(composed(*overrides))
    check_composed(composed(*overrides, "dataset.disable_validation=true"))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["++checkpoint.write_checkpoints_asynchronously=true"],
            r"checkpoint.write_checkpoints_asynchronously=true is refused \(fairseq exits without training if iopath",
        ),
        (["++ema.store_ema=true"], r"ema.store_ema=true is refused \(fairseq cannot copy"),
        (["++common.suppress_crashes=true"], "common.suppress_crashes=true is refused"),
        (["common.fp16=true", "common.bf16=true"], "common.fp16 and common.bf16 exclude each other"),
        (["++common.memory_efficient_fp16=true"], "common.memory_efficient_fp16=true does nothing without common.fp16"),
        (
            [*(f"~criterion.{key}" for key in SELF_KEYS), "criterion._name=kd_ctc", "+criterion.teacher_path=/t"],
            r"criterion kd_ctc trains a model with one exit, but model.student_layers=\[6\] adds more: set "
            r"model.student_layers=\[",
        ),
    ],
)
@pytest.mark.slow
def test_values_that_would_be_silently_wrong(overrides, sentence):
    """X16 and similar: exit status 0 without training, or a key without effect."""
    with pytest.raises(UserError, match=f"^{sentence}"):
        check_composed(composed(*overrides))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["+model.student_layer=[3]"], r"model.student_layer is unknown: did you mean model.student_layers\?"),
        (["+criterion.temprature=2"], r"criterion.temprature is unknown: did you mean criterion.temperature\?"),
        (["+model.zzz=1"], r"model.zzz is unknown: delete it \(on a command line: ~model.zzz\)"),
        (["+model.condition_on_students=false"], "model.condition_on_students was removed in version 0.2.0: delete"),
        (["model.dropout=much"], "model.dropout=much cannot be used: "),
        (["criterion.alpha=[1]"], r"criterion.alpha=\[1\] cannot be used: "),
    ],
)
def test_unknown_keys_and_wrong_types(overrides, sentence):
    """A typo, or a YAML of version 0.1.0, ended in omegaconf's traceback."""
    with pytest.raises(UserError, match=f"^{sentence}"):
        check_composed(composed(*overrides))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["task._name=hubert_pretrainin"],
            r"task._name=hubert_pretrainin is unknown: did you mean hubert_pretraining\?",
        ),
        (["criterion._name=skdctc"], r"criterion._name=skdctc is unknown: did you mean skd_ctc\?"),
        (["optimizer._name=adamm"], r"optimizer._name=adamm is unknown: did you mean adam\?"),
        (["lr_scheduler._name=zzz"], r"lr_scheduler._name=zzz is unknown: choose one of cosine, fixed, .*tri_stage"),
        (["criterion=null"], "criterion._name is not set: choose one of "),
        (["criterion.post_process=words"], "criterion.post_process=words is unknown: choose one of letter, none, "),
    ],
)
@pytest.mark.slow
def test_names_that_fairseq_does_not_know(overrides, sentence):
    """KeyErrors and assertions after the model was built; for post_process, an epoch later."""
    with pytest.raises(UserError, match=f"^{sentence}"):
        check_composed(composed(*overrides))


@pytest.mark.faults
@pytest.mark.parametrize("key", ["fp16", "amp"])
def test_a_precision_that_needs_a_gpu(key):
    """X13: fp16 ended in torch's "not compiled with CUDA", amp trained silently in float32."""
    cfg = check_composed(composed(f"++common.{key}=true"))
    with pytest.raises(
        UserError, match=f"^common.{key}=true needs a GPU, but .*: set common.{key}=false; the recipe hubert_mini "
    ):
        check_device(cfg)
    check_device(check_composed(composed("common.bf16=true")))


def test_a_gpu_that_is_there_but_not_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = check_composed(composed("common.fp16=true"))
    with pytest.raises(UserError, match="common.cpu=true forbids it"):
        check_device(cfg)
    cfg.common.cpu = False
    check_device(cfg)
