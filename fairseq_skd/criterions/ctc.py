"""All that the criteria share: a batch to the exits' CTC, and what is logged of it in fairseq's convention."""

import logging
import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.data.data_utils import post_process
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.criterions.config import CtcKeys, beam_search, check_ctc
from fairseq_skd.errors import UserError
from fairseq_skd.objective import losses
from fairseq_skd.scoring.transcripts import count_errors
from fairseq_skd.search.greedy import greedy_units

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


class Batch(NamedTuple):
    """Targets beside the logits of one batch, utterances without a CTC path left out."""

    logits: dict[int, Tensor]  # layer count -> (T, B, V), the exits of the model that is trained
    guide: Tensor | None  # (T, B, V), logits of a separate teacher
    frames: Tensor  # (B,) real frames
    targets: Tensor  # (B, S)
    target_lengths: Tensor  # (B,)

    def keep(self, kept: Tensor) -> "Batch":
        """The batch without the utterances that are not kept; the very same tensors when all are."""
        if bool(kept.all()):
            return self
        return Batch(
            {layer: logits[:, kept] for layer, logits in self.logits.items()},
            self.guide[:, kept] if self.guide is not None else None,
            self.frames[kept],
            self.targets[kept],
            self.target_lengths[kept],
        )


class CtcCriterion(FairseqCriterion):
    """A criterion over the exits of model ``skd_ctc``; a subclass says what the objective is.

    Every term is a sum over real frames and utterances; fairseq divides by ``sample_size`` (target units, or sentences
    with ``sentence_avg``).
    """

    TRAINED = "student"  # exit whose blank rate is monitored

    def __init__(self, cfg: CtcKeys, task: FairseqTask) -> None:
        super().__init__(task)
        check_ctc(cfg)
        self.cfg: Any = cfg
        self.dictionary = task.target_dictionary
        blank = getattr(task, "blank_symbol", None)
        self.blank = self.dictionary.index(blank) if blank is not None else 0
        self.search = beam_search(cfg, self.dictionary, self.blank)
        self.plateau = BlankPlateau(cfg.max_update)

    @abstractmethod
    def objective(self, batch: Batch, updates: int) -> tuple[Tensor, dict[str, Any]]:
        """The loss of a batch, and sums to log: its terms before they are weighed."""

    @abstractmethod
    def watched(self, batch: Batch) -> dict[str, Tensor]:
        """Whose blanks are counted: ``teacher`` and ``student`` -> (T, B, V), of which one may be absent."""

    def guide(self, model: Any, sample: Mapping[str, Any]) -> Tensor | None:
        """(T, B, V) logits of a separate teacher; None where there is none."""
        return None

    def forward(self, model: Any, sample: Mapping[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss of a batch, its sample size, and the sums that :meth:`reduce_metrics` logs."""
        if "target" not in sample:
            raise UserError("the task gives no 'target': set task.single_target=true and task.fine_tuning=true")
        net_output = model(**sample["net_input"])
        if "exit_logits" not in net_output:
            raise UserError(f"criterion {self.cfg._name} works with model._name=skd_ctc only")
        logits, guide = net_output["exit_logits"], self.guide(model, sample)
        targets = sample["target"]
        real = (targets != self.dictionary.pad()) & (targets != self.dictionary.eos())
        batch = Batch(logits, guide, net_output["frame_lengths"], targets, real.sum(dim=1))
        feasible = losses.feasible(batch.targets, batch.target_lengths, batch.frames)
        loss, terms = self.objective(batch.keep(feasible), model.num_updates)

        ntokens = sample["ntokens"] if "ntokens" in sample else int(batch.target_lengths.sum())
        sample_size = targets.size(0) if self.cfg.sentence_avg else ntokens
        log: dict[str, Any] = dict(terms)
        log.update(
            loss=loss,
            ntokens=ntokens,
            nsentences=targets.size(0),
            sample_size=sample_size,
            infeasible=(~feasible).sum(),
            batches=1,
            **self._blanks(batch),
        )
        log = {name: value.detach() if torch.is_tensor(value) else value for name, value in log.items()}
        if model.training:
            self.plateau.watch(model.num_updates, log["frames"], log[f"blanks_{self.TRAINED}"])
        else:
            log.update(self._errors(batch))
        return loss, sample_size, log

    def ctc(self, logits: Tensor, batch: Batch) -> Tensor:
        """CTC of one exit, a scalar; of no utterance a zero that still reaches the head, for data-parallel training."""
        if batch.frames.numel() == 0:
            return logits.float().sum()
        return losses.ctc_loss(
            torch.log_softmax(logits.float(), dim=-1),
            batch.targets,
            batch.frames,
            batch.target_lengths,
            self.blank,
            self.cfg.zero_infinity,
        )

    @torch.no_grad()
    def _blanks(self, batch: Batch) -> dict[str, Tensor]:
        """Real frames, and how many of them are blank in what is watched."""
        real = losses.frame_mask(batch.frames, next(iter(batch.logits.values())).size(0))
        counts = {"frames": real.sum()}
        for name, logits in self.watched(batch).items():
            counts[f"blanks_{name}"] = ((logits.argmax(dim=-1) == self.blank) & real).sum()
        return counts

    @torch.no_grad()
    def _errors(self, batch: Batch) -> dict[str, int]:
        """Word and unit errors of every exit on a validation batch, and the reference's lengths."""
        references = [
            target[:length].tolist()
            for target, length in zip(batch.targets, batch.target_lengths.tolist(), strict=True)
        ]
        words = [self._words(units) for units in references]
        counts = {"units": sum(map(len, references)), "words": sum(map(len, words))}
        for layer, logits in batch.logits.items():
            units = greedy_units(logits, batch.frames, self.blank)
            greedy_words = [self._words(hypothesis) for hypothesis in units]
            counts[f"unit_errors_{layer}"] = _errors(units, references)
            counts[f"word_errors_{layer}"] = _errors(greedy_words, words)
            if self.search is not None:
                counts[f"raw_word_errors_{layer}"] = counts[f"word_errors_{layer}"]
                found = [hypothesis.words or [] for hypothesis in self.search(logits, batch.frames)]
                counts[f"word_errors_{layer}"] = _errors(found, words)
        return counts

    def _words(self, units: Sequence[int]) -> list[str]:
        text = self.dictionary.string(torch.tensor(units, dtype=torch.long))
        return post_process(text, self.cfg.post_process).split()

    @staticmethod
    def reduce_metrics(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Sum over workers and micro-batches, then log."""
        log_metrics(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All that is logged is a sum."""
        return True


def _errors(hypotheses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]) -> int:
    return sum(count_errors(*pair).errors for pair in zip(hypotheses, references, strict=True))
