"""Check the configuration of a training. Each message names the key, its value and what to set."""

import ast
import difflib
import logging
from typing import Any

import torch
from fairseq import registry
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.optim.sgd import SGD
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.criterions.config import KdCtcCriterionConfig, SkdCtcCriterionConfig, check_criterion
from fairseq_skd.criterions.ctc import metric_names
from fairseq_skd.errors import UserError
from fairseq_skd.models.config import SkdCtcConfig, check_model, select
from fairseq_skd.typed_settings import COUNT, FINITE, NON_NEGATIVE, POSITIVE, PROBABILITY, Range, check_ranges

logger = logging.getLogger(__name__)


def check_schedule(cfg: DictConfig) -> None:
    """Check that the learning rate schedule fits the run.

    A run that ends inside a phase gets only a warning: a trial of a few updates does so on purpose.

    Args:
        cfg: the whole configuration.

    Raises:
        UserError: the schedule cannot be built for a run of this length, or fairseq would stop
            before the first update.
    """
    updates = cfg.optimization.max_update
    frozen = cfg.model.freeze_finetune_updates
    if 0 < updates <= frozen:
        logger.warning(
            "model.freeze_finetune_updates=%d is not below optimization.max_update=%d, so only the heads are trained: "
            "lower it to train the encoder too",
            frozen,
            updates,
        )
    if cfg.lr_scheduler._name == "pass_through":
        return  # a composite optimizer has schedules of its own
    name = cfg.lr_scheduler._name
    schedule = _build(cfg)
    first = _rate(schedule, 0)
    if first <= cfg.optimization.stop_min_lr:
        raise UserError(
            f"optimization.stop_min_lr={cfg.optimization.stop_min_lr} would stop the run before its first update, "
            f"because the learning rate of lr_scheduler {name} starts at {first:g}: set it below that, or to -1"
        )
    phases = _phases(schedule, select(cfg, "lr_scheduler.warmup_updates") or 0)
    if 0 < updates < phases:
        logger.warning(
            "the phases of lr_scheduler %s last %d updates, but the run ends after optimization.max_update=%d: the "
            "learning rate ends at %g instead of %g",
            name,
            phases,
            updates,
            _rate(schedule, updates),
            _rate(schedule, phases),
        )


def _build(cfg: DictConfig) -> Any:
    plain = OmegaConf.create(OmegaConf.to_container(cfg.lr_scheduler, resolve=True))  # fairseq's classes write into it
    rate = OmegaConf.create({"lr": list(cfg.optimization.lr), "momentum": 0.0, "weight_decay": 0.0})
    try:
        schedule = build_lr_scheduler(plain, SGD(rate, [torch.nn.Parameter(torch.zeros(1))]))
        for updates in {0, max(cfg.optimization.max_update - 1, 0), cfg.optimization.max_update}:
            schedule.step_update(updates)
    except (AssertionError, ValueError, ZeroDivisionError, OverflowError) as error:
        if str(error).startswith(_ONE_RATE):
            raise UserError(
                f"optimization.lr={list(cfg.optimization.lr)} has several rates, but lr_scheduler "
                f"{cfg.lr_scheduler._name} takes one and changes it by itself: give one number"
            ) from error
        keys = ", ".join(f"lr_scheduler.{key}={value}" for key, value in plain.items() if key in _KEYS and value)
        reason = str(error) or type(error).__name__
        raise UserError(
            f"lr_scheduler {cfg.lr_scheduler._name} has no schedule for optimization.max_update="
            f"{cfg.optimization.max_update} with {keys or 'its keys'} ({reason}): give every phase at least one update"
        ) from error
    return schedule


_ONE_RATE = "Cannot use a fixed learning rate schedule"  # fairseq's words for several rates
# Keys that set the phases of fairseq's schedules.
_KEYS = (
    *("phase_ratio", "warmup_steps", "hold_steps", "decay_steps", "final_lr_scale"),
    *("warmup_updates", "total_num_update", "lr_period_updates"),
)


def _phases(schedule: Any, warmup: int) -> float:
    """Return the update at which the last phase ends; without phases, the end of the warm-up."""
    if hasattr(schedule, "decay_steps"):
        return schedule.warmup_steps + schedule.hold_steps + schedule.decay_steps
    return max(getattr(schedule, "total_num_update", 0), warmup)


def _rate(schedule: Any, updates: float) -> float:
    schedule.step_begin_epoch(1)
    return float(schedule.step_update(updates))


_CRITERIA: dict[str, Any] = {"skd_ctc": SkdCtcCriterionConfig, "kd_ctc": KdCtcCriterionConfig}

# Ranges in fairseq's own sections; the ranges of model and criterion stand beside their keys.
RANGES: dict[str, dict[str, Range]] = {
    "common": {
        "seed": Range(0, 2**31 - 1),  # numpy takes no more than 2^32 - 1, and fairseq adds epochs to it
        "log_interval": COUNT,
        "empty_cache_freq": NON_NEGATIVE,
        "fp16_init_scale": COUNT,
        "fp16_scale_window": COUNT,
        "fp16_scale_tolerance": PROBABILITY,
        "min_loss_scale": NON_NEGATIVE,
        "threshold_loss_scale": NON_NEGATIVE,
        "amp_init_scale": COUNT,
        "amp_scale_window": COUNT,
        "amp_batch_retries": NON_NEGATIVE,
    },
    "dataset": {
        "num_workers": NON_NEGATIVE,
        **dict.fromkeys(("max_tokens", "batch_size", "max_tokens_valid", "batch_size_valid"), COUNT),
        "required_batch_size_multiple": COUNT,
        "data_buffer_size": NON_NEGATIVE,
        "validate_interval": COUNT,
        "validate_interval_updates": NON_NEGATIVE,
        "validate_after_updates": NON_NEGATIVE,
        "fixed_validation_seed": Range(0, 2**31 - 1),
        "max_valid_steps": NON_NEGATIVE,
        "curriculum": NON_NEGATIVE,
    },
    "optimization": {
        "max_epoch": NON_NEGATIVE,  # a negative one ends the run before it begins
        "max_update": NON_NEGATIVE,  # a negative one ends the run after one update
        "stop_time_hours": NON_NEGATIVE,
        "clip_norm": NON_NEGATIVE,
        "update_freq": COUNT,
        "lr": POSITIVE,
        "stop_min_lr": FINITE,
    },
    "checkpoint": {"save_interval": COUNT, "save_interval_updates": NON_NEGATIVE},
    "optimizer": {
        "adam_eps": POSITIVE,
        "weight_decay": NON_NEGATIVE,
        "momentum": Range(0, 1, below=True),
    },
    "lr_scheduler": {
        **dict.fromkeys(("warmup_steps", "hold_steps", "decay_steps", "warmup_updates"), NON_NEGATIVE),
        "phase_ratio": PROBABILITY,
        "init_lr_scale": NON_NEGATIVE,
        "final_lr_scale": POSITIVE,
    },
}

# With these, fairseq exits with status 0 although the training failed or its files are incomplete.
_REFUSED: dict[str, str] = {
    "checkpoint.write_checkpoints_asynchronously": (
        "fairseq exits without training if iopath is not installed, and copies no checkpoint_best.pt if it is"
    ),
    "ema.store_ema": "fairseq cannot copy an encoder with weight norm, and exits before the first update",
    "common.suppress_crashes": "a failed training would exit with status 0",
}
_REMOVED = {"model.condition_on_students": "0.2.0"}


def check_composed(composed: DictConfig) -> DictConfig:
    """Check a composed configuration before its training begins, perhaps on another machine.

    Args:
        composed: a YAML with its overrides.

    Returns:
        the whole configuration, completed as ``fairseq-hydra-train`` does.

    Raises:
        UserError: a key is unknown or has a bad value; the message names the key.
    """
    check_keys(composed)
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(FairseqConfig()), composed)
        add_defaults(cfg)
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{getattr(error, 'full_key', None) or 'the configuration'} cannot be used: {reason}"
        ) from error
    check_configuration(cfg)
    return cfg


def check_keys(cfg: DictConfig) -> None:
    """Check that model and criterion have known keys with values of the right types.

    Args:
        cfg: the whole configuration, before ``add_defaults``.

    Raises:
        UserError: a key is unknown, or its value has the wrong type.
    """
    declared: dict[str, Any] = {"model": SkdCtcConfig}
    criterion = select(cfg, "criterion._name")
    if criterion in _CRITERIA:
        declared["criterion"] = _CRITERIA[criterion]
    for section, kind in declared.items():
        given = cfg[section]
        for key in given:
            if key not in kind.__dataclass_fields__:
                raise UserError(_unknown(section, str(key), [*kind.__dataclass_fields__]))
        try:
            OmegaConf.merge(OmegaConf.structured(kind), given)
        except OmegaConfBaseException:
            _name_misfit(section, kind, given)
            raise


def _name_misfit(section: str, kind: Any, given: DictConfig) -> None:
    """Raise an error that names the key of the wrong type; omegaconf does not always name it."""
    for key, value in OmegaConf.to_container(given, resolve=False).items():
        try:
            OmegaConf.merge(OmegaConf.structured(kind), {key: value})
        except OmegaConfBaseException as error:
            reason = str(error).partition("\n")[0]
            if "is not a ListConfig" in reason:
                reason = f"it takes a list, {section}.{key}=[{value}]"
            raise UserError(f"{section}.{key}={value} cannot be used: {reason}") from error


def _unknown(section: str, key: str, known: list[str]) -> str:
    if version := _REMOVED.get(f"{section}.{key}"):
        return f"{section}.{key} was removed in version {version}: delete the line"
    nearest = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {section}.{nearest[0]}?" if nearest else f"delete it (on a command line: ~{section}.{key})"
    return f"{section}.{key} is unknown: {advice}"


def _check_names(cfg: DictConfig) -> None:
    """Check that fairseq knows the ``_name`` of each section; it notices most of them too late."""
    registries = {name: registry.REGISTRIES[name]["registry"] for name in ("criterion", "optimizer", "lr_scheduler")}
    for section, known in {"task": TASK_DATACLASS_REGISTRY, **registries}.items():
        name = select(cfg, f"{section}._name")
        if name in known:
            continue
        wrong = f"{section}._name is not set" if name is None else f"{section}._name={name} is unknown"
        nearest = difflib.get_close_matches(name or "", known, n=1)
        advice = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(sorted(known))}"
        raise UserError(f"{wrong}: {advice}")


def check_configuration(cfg: DictConfig) -> None:
    """Check everything that needs only the configuration.

    Args:
        cfg: the whole configuration, completed by ``add_defaults``.

    Raises:
        UserError: a key has a bad value; the message names the key.
    """
    for key, reason in _REFUSED.items():
        if OmegaConf.select(cfg, key):
            cfg.common.suppress_crashes = False  # or fairseq would suppress this error
            raise UserError(f"{key}=true is refused ({reason}): set it to false")
    _check_names(cfg)
    for section, ranges in RANGES.items():
        if isinstance(cfg[section], DictConfig):
            check_ranges(section, cfg[section], ranges)
    check_model(cfg.model)
    if cfg.criterion._name in _CRITERIA:
        check_criterion(cfg.criterion)
    if cfg.criterion._name == "kd_ctc" and cfg.model.student_layers:
        raise UserError(
            f"criterion kd_ctc trains a model with one exit, but model.student_layers="
            f"{list(cfg.model.student_layers)} adds more: set model.student_layers=[] (and model.keep_layers for a "
            f"small model)"
        )
    if cfg.dataset.max_tokens is None and cfg.dataset.batch_size is None:
        raise UserError("dataset.max_tokens and dataset.batch_size are both null: set one of them")
    _check_betas(cfg.optimizer)
    _check_precision(cfg.common)
    _check_metric(cfg)
    first, last = cfg.dataset.validate_after_updates, cfg.optimization.max_update
    if 0 < last < first and not cfg.dataset.disable_validation:
        logger.warning(
            "dataset.validate_after_updates=%d is above optimization.max_update=%d, so nothing is validated and only "
            "checkpoint_last.pt is written: lower it to get a checkpoint_best.pt",
            first,
            last,
        )
    check_schedule(cfg)


def check_device(cfg: DictConfig) -> None:
    """Check that this machine can train in the configured precision.

    On a CPU, bf16 trains, fp16 fails, and amp silently trains in float32.

    Raises:
        UserError: the precision needs a GPU, and there is none or ``common.cpu`` is set.
    """
    if cfg.common.tpu or (torch.cuda.is_available() and not cfg.common.cpu):
        return
    for key in ("fp16", "amp"):
        if cfg.common[key]:
            why = "common.cpu=true forbids it" if torch.cuda.is_available() else "there is none"
            raise UserError(
                f"common.{key}=true needs a GPU, but {why}: set common.{key}=false; the recipe hubert_mini trains a "
                f"small encoder on a CPU"
            )


def _check_betas(optimizer: Any) -> None:
    """Check Adam's decay rates; fairseq also takes them as a string, which it evaluates."""
    betas = optimizer.adam_betas if isinstance(optimizer, DictConfig) and "adam_betas" in optimizer else (0.9, 0.999)
    try:
        values = list(ast.literal_eval(betas) if isinstance(betas, str) else betas)
    except (ValueError, SyntaxError, TypeError):
        values = []
    if len(values) != 2 or not all(Range(0, 1, below=True).holds(value) for value in values):
        raise UserError(
            f"optimizer.adam_betas={betas} is out of range: give two numbers of at least 0 and below 1, such as "
            f"(0.9,0.98)"
        )


def _check_precision(common: Any) -> None:
    chosen = [key for key in ("fp16", "bf16", "amp") if common[key]]
    if len(chosen) > 1:
        raise UserError(f"common.{' and common.'.join(chosen)} exclude each other: set only one of them to true")
    for key in ("fp16", "bf16"):
        if common[f"memory_efficient_{key}"] and not common[key]:
            raise UserError(
                f"common.memory_efficient_{key}=true does nothing without common.{key}=true: set both, or neither"
            )


def _check_metric(cfg: DictConfig) -> None:
    """Check the metric for checkpoint_best.pt; fairseq looks it up only after the first epoch."""
    if cfg.dataset.disable_validation:
        return
    metric, criterion, students = cfg.checkpoint.best_checkpoint_metric, cfg.criterion._name, cfg.model.student_layers
    names = metric_names(criterion, students, bool(select(cfg, "criterion.wer_kenlm_model")))
    if not names:
        return
    if metric not in names:
        raise UserError(
            f"checkpoint.best_checkpoint_metric={metric} is not logged by criterion {criterion} with "
            f"model.student_layers={list(students)}: choose one of {', '.join(names)}"
        )
    if cfg.checkpoint.maximize_best_checkpoint_metric:
        raise UserError(
            f"checkpoint.maximize_best_checkpoint_metric=true would keep the checkpoint with the highest {metric}: set "
            f"it to false"
        )
