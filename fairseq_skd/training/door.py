"""Check a training when ``fairseq_cli.train`` completes its configuration: before data are read."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from omegaconf import DictConfig, OmegaConf

from fairseq_skd.recipe_keys import check_required
from fairseq_skd.training import lock
from fairseq_skd.training.checks import check_configuration, check_device, check_keys
from fairseq_skd.training.resuming import check_resumed, resumed_from
from fairseq_skd.training.starting import check_save_dir, check_start, complete_start

logger = logging.getLogger(__name__)

MODEL = "skd_ctc"


def check_at_the_door() -> None:
    """Make ``fairseq_cli.train`` check its configuration, lock its folder, stop at ``max_update``.

    Trainings of other models are not touched.
    """
    program: Any = sys.modules.get("fairseq_cli.train")  # a process that trains has imported it
    if program is None or hasattr(program.add_defaults, "__wrapped__"):
        return
    program.add_defaults = _checked(program.add_defaults)
    program.train = _up_to_the_last_update(program.train)


def _checked(add_defaults: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Check the configuration before and after ``add_defaults`` completes it."""

    @functools.wraps(add_defaults)
    def checked(cfg: DictConfig) -> None:
        if not _is_ours(cfg):
            add_defaults(cfg)
            return
        _forget_earlier_trainings()
        complete_start(cfg)
        check_required(cfg)
        check_keys(cfg)
        add_defaults(cfg)
        check_configuration(cfg)
        check_device(cfg)
        check_start(cfg)
        if distributed_utils.is_master(cfg.distributed_training):  # the worker that writes
            check_save_dir(cfg)
            if not cfg.checkpoint.no_save:
                lock.hold(cfg.checkpoint.save_dir)
            check_resumed(cfg)

    return checked


def _forget_earlier_trainings() -> None:
    """Forget the best result of earlier trainings in this process (Hydra's ``--multirun``)."""
    program: Any = sys.modules["fairseq_cli.train"]
    for function in (checkpoint_utils.save_checkpoint, program.should_stop_early):
        for name in ("best", "num_runs"):
            vars(function).pop(name, None)


def _up_to_the_last_update(train: Callable[..., Any]) -> Callable[..., Any]:
    """Stop a complete run before it trains; fairseq trains and saves one more update per start."""

    @functools.wraps(train)
    def train_epoch(cfg: DictConfig, trainer: Any, *args: Any, **kwargs: Any) -> tuple[list[float | None], bool]:
        updates, last = trainer.get_num_updates(), cfg.optimization.max_update
        if not _is_ours(cfg) or not 0 < last <= updates:
            return train(cfg, trainer, *args, **kwargs)
        logger.warning(
            "nothing to train: %s already has %d updates and optimization.max_update=%d. To continue, raise "
            "optimization.max_update; to start again, give another checkpoint.save_dir",
            resumed_from(cfg),
            updates,
            last,
        )
        return [None], True  # no validation loss; stop

    return train_epoch


def _is_ours(cfg: DictConfig) -> bool:
    return OmegaConf.select(cfg, "model._name") == MODEL
