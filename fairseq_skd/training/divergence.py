"""NaN and Inf during a training: the last words name the update and the utterances."""

import functools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq.trainer import Trainer

from fairseq_skd.criterions.ctc import CtcCriterion
from fairseq_skd.errors import UserError
from fairseq_skd.fairseq_fixes import audio_file

logger = logging.getLogger(__name__)

# What fairseq raises FloatingPointError with; fp16's normal skips of an update are an OverflowError that it catches.
_NOT_FINITE = "gradients are Nan/Inf"
_DIVERGED = re.compile(rf"{_NOT_FINITE}|Minimum loss scale reached \(\S+\)")
# On several GPUs fairseq says of NaN that gradients are inconsistent, and lists their norms: "rank   0 = nan".
_NORM_NOT_FINITE = re.compile(r"^rank +\d+ = -?(nan|inf)$", re.MULTILINE)
_FEW = 8  # files that a sentence can hold


def tell_where_training_diverges() -> None:
    """Make fairseq's trainer name update and utterances, and stop at a validation loss that is NaN or Inf.

    Trainings with criteria of other packages are left alone. What is raised is a
    :class:`~fairseq_skd.errors.UserError`.
    """
    train_step, valid_step = Trainer.train_step, Trainer.valid_step
    if hasattr(train_step, "names_utterances"):
        return

    @functools.wraps(train_step)
    def checked_train_step(self: Trainer, samples: Sequence[Mapping[str, Any]], *args: Any, **kwargs: Any) -> Any:
        try:
            return train_step(self, samples, *args, **kwargs)
        except FloatingPointError as error:
            reason = _reason(str(error))
            if reason is None or not isinstance(self.get_criterion(), CtcCriterion):
                raise
            raise UserError(_diverged(self, samples, reason)) from error

    @functools.wraps(valid_step)
    def checked_valid_step(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        logged = valid_step(self, *args, **kwargs)
        loss = float(logged.get("loss", 0))
        if not math.isfinite(loss) and isinstance(self.get_criterion(), CtcCriterion):
            raise UserError(
                f"validation after update {self.get_num_updates()}: the loss is {loss}, the training has diverged: go "
                f"on from an earlier checkpoint with a lower optimization.lr"
            )
        return logged

    checked_train_step.names_utterances = True  # type: ignore[attr-defined]
    Trainer.train_step, Trainer.valid_step = checked_train_step, checked_valid_step


def _reason(words: str) -> str | None:
    """fairseq's words for a training that diverged, without its advice; None if they are about something else."""
    if _NORM_NOT_FINITE.search(words):
        return _NOT_FINITE
    found = _DIVERGED.match(words)
    return found[0] if found else None


def _diverged(trainer: Trainer, samples: Sequence[Mapping[str, Any]], reason: str) -> str:
    dataset = trainer.task.dataset(trainer.cfg.dataset.train_subset)
    files = [
        audio_file(dataset, index) for sample in samples if sample for index in torch.as_tensor(sample["id"]).tolist()
    ]
    if len(files) > _FEW:
        logger.error("utterances of the batch: %s", ", ".join(files))
    named = ", ".join(files[:_FEW]) + (f" and {len(files) - _FEW} more, logged above" if len(files) > _FEW else "")
    worker = f" on worker {trainer.data_parallel_rank}" if trainer.data_parallel_world_size > 1 else ""
    return (
        f"update {trainer.get_num_updates() + 1}{worker}: {reason}, with the utterances {named}: lower "
        f"optimization.lr, or leave these out if others train"
    )
