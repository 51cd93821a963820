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
_SELF, _SEPARATE, _STOCK = "skd_ctc", "kd_ctc", "ctc"


def metric_names(
    criterion: str, students: Sequence[int], beam_search: bool, depth: int | None = None
) -> tuple[str, ...]:
    """Names of the metrics that a validation logs.

    Args:
        criterion: registered name; ``ctc`` is fairseq's, which can train the model ``skd_ctc`` too.
        students: layer counts of the students, in the order of ``model.student_layers``.
        beam_search: whether validation has a language model.
        depth: L; None leaves out ``wer_<L>`` and ``raw_wer_<L>``, which equal ``wer`` and ``raw_wer``.

    Returns:
        the names, error rates first; empty for an unknown criterion.
    """
    if criterion == _STOCK:
        return ("wer", "uer", "raw_wer", "loss", "ntokens", "nsentences")
    if criterion not in (_SELF, _SEPARATE):
        return ()
    terms: tuple[str, ...] = ("loss", "ctc_teacher")
    watched: tuple[str, ...] = ("teacher",)
    if criterion == _SEPARATE:
        terms, watched = ("loss", "ctc", "kd"), ("teacher", "student")
    elif students:
        terms, watched = (*terms, "ctc_student", "skd", "alpha"), ("teacher", "student")
    unknown = ("wer_None", "raw_wer_None")
    rates = [name for name in _rates((depth, *students), beam_search) if name not in unknown]
    blanks = [f"blank_{name}" for name in watched]
    return (*rates, *terms, *blanks, "infeasible", "ntokens", "nsentences")


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
    beam_search = f"raw_word_errors_{layers[0]}" in sums
    for layer in layers:
        for kind in ("word", "unit", *(("raw_word",) if beam_search else ())):
            metrics.log_scalar_sum(f"_{kind}_errors_{layer}", sums[f"{kind}_errors_{layer}"])
    for name, (errors, total) in _rates(layers, beam_search).items():
        _log_rate(name, errors, total)


def _rates(layers: Sequence[int | None], beam_search: bool) -> dict[str, tuple[str, str]]:
    """Name of an error rate -> the meters of its errors and of its total; layers as the criterion lists its exits."""
    rates = {}
    for layer, prefix in zip(layers, ("", "student_"), strict=False):  # the teacher and the first student
        rates[f"{prefix}wer"] = f"_word_errors_{layer}", "_words"
        rates[f"{prefix}uer"] = f"_unit_errors_{layer}", "_units"
        if beam_search:
            rates[f"{prefix}raw_wer"] = f"_raw_word_errors_{layer}", "_words"
    for layer in layers if len(layers) > 2 else ():
        rates[f"wer_{layer}"] = f"_word_errors_{layer}", "_words"
        if beam_search:
            rates[f"raw_wer_{layer}"] = f"_raw_word_errors_{layer}", "_words"
    return rates


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
