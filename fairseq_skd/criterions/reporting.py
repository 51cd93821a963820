"""What the criterion logs, in fairseq's convention: losses by sample size and in bits."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq import utils
from fairseq.logging import metrics
from torch import Tensor

logger = logging.getLogger(__name__)

_TERMS = ("loss", "ctc_teacher", "ctc_student", "skd", "ctc", "kd")


def log_metrics(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Sum the criterion's logging outputs and hand them to fairseq's meters.

    ``loss`` and its terms are divided by the sample size and by ln 2; ``blank_*`` is a share of real frames;
    ``infeasible`` counts utterances; ``wer``, ``uer`` are those of the model's full depth, in percent.
    """
    sums: dict[str, float] = {}
    for output in logging_outputs:
        for name, value in output.items():
            sums[name] = sums.get(name, 0) + utils.item(value)
    size = sums.get("sample_size", 0)
    for name in _TERMS:
        if name in sums and size > 0:
            metrics.log_scalar(name, sums[name] / size / math.log(2), size, round=3)
    metrics.log_scalar("ntokens", sums.get("ntokens", 0))
    metrics.log_scalar("nsentences", sums.get("nsentences", 0))
    if "alpha_sum" in sums:
        metrics.log_scalar("alpha", sums["alpha_sum"] / sums["batches"], sums["batches"], round=4)
    for exit_name in ("teacher", "student"):
        if f"blanks_{exit_name}" in sums and sums["frames"] > 0:
            share = sums[f"blanks_{exit_name}"] / sums["frames"]
            metrics.log_scalar(f"blank_{exit_name}", share, sums["frames"], round=4)
    metrics.log_scalar_sum("infeasible", sums.get("infeasible", 0))
    _log_errors(sums)


def _log_errors(sums: Mapping[str, float]) -> None:
    """Error rates of the exits; fairseq's meters add up errors and lengths over batches before they divide.

    With a beam search ``wer`` is its, and ``raw_wer`` that of the best path, as in fairseq's ``ctc``.
    """
    layers = [int(name.rsplit("_", 1)[1]) for name in sums if name.startswith("word_errors_")]
    if not layers:
        return
    metrics.log_scalar_sum("_units", sums["units"])
    metrics.log_scalar_sum("_words", sums["words"])
    names = ["", "student_"]  # teacher and first student, as the criterion lists its exits
    for i, layer in enumerate(layers):
        metrics.log_scalar_sum(f"_word_errors_{layer}", sums[f"word_errors_{layer}"])
        metrics.log_scalar_sum(f"_unit_errors_{layer}", sums[f"unit_errors_{layer}"])
        if i < len(names):
            _log_rate(f"{names[i]}wer", f"_word_errors_{layer}", "_words")
            _log_rate(f"{names[i]}uer", f"_unit_errors_{layer}", "_units")
        if len(layers) > 2:
            _log_rate(f"wer_{layer}", f"_word_errors_{layer}", "_words")
        if f"raw_word_errors_{layer}" in sums:
            metrics.log_scalar_sum(f"_raw_word_errors_{layer}", sums[f"raw_word_errors_{layer}"])
            if i < len(names):
                _log_rate(f"{names[i]}raw_wer", f"_raw_word_errors_{layer}", "_words")
            if len(layers) > 2:
                _log_rate(f"raw_wer_{layer}", f"_raw_word_errors_{layer}", "_words")


def _log_rate(name: str, errors: str, total: str) -> None:
    def rate(meters: Mapping[str, Any]) -> float:
        length = meters[total].sum
        return round(100.0 * utils.item(meters[errors].sum) / utils.item(length), 3) if length else float("nan")

    metrics.log_derived(name, rate)


class BlankPlateau:
    """Says once, a quarter through the run, that the model still outputs nothing but blanks.

    Watched are the updates of the fifth before that; the counts stay on the device until the verdict.

    Args:
        max_update: length of the run; 0 (unknown) watches nothing.
    """

    def __init__(self, max_update: int) -> None:
        self.verdict_at = max_update // 4 if max_update > 0 else None
        self.watch_from = max_update // 5
        self._spoken: Tensor | int = 0
        self._watching = False

    def watch(self, updates: int, frames: Tensor, blanks: Tensor) -> None:
        """Count a training batch; warn when the verdict is due and no frame was anything but blank."""
        if self.verdict_at is None or updates < self.watch_from:
            return
        if not self._watching and updates > self.watch_from:  # a resumed run: what came before was not seen
            self.verdict_at = None
            return
        self._watching = True
        self._spoken = self._spoken + (frames - blanks)
        if updates < self.verdict_at:
            return
        if int(self._spoken) == 0:
            logger.warning(
                "after %d updates, a quarter of the run, the model still outputs blanks only (WER 100). Usual causes: "
                "the learning rate is too low or its warm-up too long, freeze_finetune_updates takes most of the run, "
                "masks are too heavy for short utterances, the transcripts' alphabet is not that of dict.*.txt, or "
                "task.normalize differs from pretraining; small encoders stay on this plateau for some hundred updates",
                updates,
            )
        self.verdict_at = None
