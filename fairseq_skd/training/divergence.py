"""Report NaN and Inf during a training, with the update and the utterances."""

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

# Texts of fairseq's FloatingPointError. The updates that fp16 skips normally are an OverflowError,
# which fairseq catches.
_NOT_FINITE = "gradients are Nan/Inf"
_DIVERGED = re.compile(rf"{_NOT_FINITE}|Minimum loss scale reached \(\S+\)")
# On several GPUs, fairseq calls NaN gradients inconsistent and lists their norms: "rank   0 = nan".
_NORM_NOT_FINITE = re.compile(r"^rank +\d+ = -?(nan|inf)$", re.MULTILINE)
_FEW = 8  # files named in one message


def tell_where_training_diverges() -> None:
    """Make fairseq's trainer report NaN and Inf as a :class:`~fairseq_skd.errors.UserError`.

    In training it names the update and the utterances. In validation it stops at a loss that is
    not finite. Trainings with criteria of other packages are not touched.
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
                f"validation after update {self.get_num_updates()}: the loss is {loss}, the training has diverged: "
                f"resume from an earlier checkpoint with a lower optimization.lr"
            )
        return logged

    checked_train_step.names_utterances = True  # type: ignore[attr-defined]
    Trainer.train_step, Trainer.valid_step = checked_train_step, checked_valid_step


def _reason(words: str) -> str | None:
    """Shorten fairseq's text about a training that diverged; None if it is about something else."""
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
        f"update {trainer.get_num_updates() + 1}{worker}: {reason}, in a batch of the utterances {named}: lower "
        f"optimization.lr, or leave these utterances out if others train"
    )
