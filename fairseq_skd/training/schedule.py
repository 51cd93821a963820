"""Check ``max_update`` against the phases of the learning rate and of the encoder."""

import logging
from typing import Any

import torch
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.optim.sgd import SGD
from omegaconf import DictConfig, OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.models.config import select

logger = logging.getLogger(__name__)


def check_schedule(cfg: DictConfig) -> None:
    """Build the learning rate schedule, and check where it begins and ends.

    A run that ends inside a phase gets a warning only: a test of a few updates does so on purpose.

    Args:
        cfg: the whole configuration.

    Raises:
        UserError: the schedule cannot be built for a run of this length, or fairseq would stop before the first update.
    """
    updates = cfg.optimization.max_update
    frozen = cfg.model.freeze_finetune_updates
    if 0 < updates <= frozen:
        logger.warning(
            "model.freeze_finetune_updates=%d is not below optimization.max_update=%d: the encoder is never trained, "
            "only the heads are",
            frozen,
            updates,
        )
    if cfg.lr_scheduler._name == "pass_through":
        return  # of a composite optimiser, which has schedules of its own
    name = cfg.lr_scheduler._name
    schedule = _build(cfg)
    first = _rate(schedule, 0)
    if first <= cfg.optimization.stop_min_lr:
        raise UserError(
            f"optimization.stop_min_lr={cfg.optimization.stop_min_lr} would stop the run before its first update, "
            f"where lr_scheduler {name} has a learning rate of {first:g}: set it below that, or to -1"
        )
    phases = _phases(schedule, select(cfg, "lr_scheduler.warmup_updates") or 0)
    if 0 < updates < phases:
        logger.warning(
            "lr_scheduler %s has phases of %d updates, the run ends after optimization.max_update=%d: the learning "
            "rate ends at %g instead of %g",
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
                f"optimization.lr={list(cfg.optimization.lr)}: lr_scheduler {cfg.lr_scheduler._name} takes one rate "
                f"and changes it by itself: give one number"
            ) from error
        keys = ", ".join(f"lr_scheduler.{key}={value}" for key, value in plain.items() if key in _KEYS and value)
        reason = str(error) or type(error).__name__
        raise UserError(
            f"lr_scheduler {cfg.lr_scheduler._name} has no schedule of optimization.max_update="
            f"{cfg.optimization.max_update} updates with {keys or 'its keys'} ({reason}): give every phase at least one"
        ) from error
    return schedule


_ONE_RATE = "Cannot use a fixed learning rate schedule"  # several rates, one per epoch
# Keys of fairseq's schedules that set the phases.
_KEYS = (
    *("phase_ratio", "warmup_steps", "hold_steps", "decay_steps", "final_lr_scale"),
    *("warmup_updates", "total_num_update", "lr_period_updates"),
)


def _phases(schedule: Any, warmup: int) -> float:
    """Updates until the end of the last phase; of a schedule without phases, the updates of the warm-up."""
    if hasattr(schedule, "decay_steps"):
        return schedule.warmup_steps + schedule.hold_steps + schedule.decay_steps
    return max(getattr(schedule, "total_num_update", 0), warmup)


def _rate(schedule: Any, updates: float) -> float:
    schedule.step_begin_epoch(1)
    return float(schedule.step_update(updates))
