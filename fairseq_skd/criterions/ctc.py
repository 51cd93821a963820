"""What the criteria share: CTC at the exits of the model, and logging in fairseq's convention."""

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
    """List the metrics that validation logs.

    Args:
        criterion: registered name; fairseq's ``ctc`` can train the model ``skd_ctc`` too.
        students: layer counts of the students, in the order of ``model.student_layers``.
        beam_search: whether validation uses a language model.
        depth: L; None leaves out ``wer_<L>`` and ``raw_wer_<L>``, which equal ``wer`` and
            ``raw_wer``.

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
    """Sum the criterion's logging outputs and pass them to fairseq's meters.

    ``loss`` and its terms are divided by the sample size and by ln 2. ``blank_*`` is a share of
    real frames. ``infeasible`` counts utterances. ``wer`` and ``uer`` are in percent, at the
    model's full depth.
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
    """Log the error rates of the exits; fairseq's meters sum errors and lengths, then divide.

    With beam search, ``wer`` scores its output and ``raw_wer`` the best path, as in fairseq's
    ``ctc``.
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
    """Map each error rate to its two meters: errors and reference length.

    ``layers`` lists the teacher first, as the criterion's exits do.
    """
    rates = {}
    for layer, prefix in zip(layers, ("", "student_"), strict=False):  # teacher, first student
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
    """Warn once, a quarter through the run, if the model still outputs only blanks.

    Frames are counted from one fifth to one quarter of the run. The counts stay on the device
    until then.

    Args:
        max_update: length of the run; 0 (unknown) watches nothing.
    """

    def __init__(self, max_update: int) -> None:
        self.verdict_at = max_update // 4 if max_update > 0 else None
        self.watch_from = max_update // 5
        self._spoken: Tensor | int = 0
        self._watching = False

    def watch(self, updates: int, frames: Tensor, blanks: Tensor) -> None:
        """Count the frames of a training batch; warn when due if all of them were blank."""
        if self.verdict_at is None or updates < self.watch_from:
            return
        if not self._watching and updates > self.watch_from:  # resumed: earlier updates were not seen
            self.verdict_at = None
            return
        self._watching = True
        self._spoken = self._spoken + (frames - blanks)
        if updates < self.verdict_at:
            return
        if int(self._spoken) == 0:
            logger.warning(
                "after %d updates, a quarter of the run, the model still outputs only blanks (WER 100). Small encoders "
                "stay on this plateau for a few hundred updates. Otherwise check: the learning rate (too low, or its "
                "warm-up too long), model.freeze_finetune_updates (most of the run), the masks (too heavy for short "
                "utterances), dict.*.txt (another alphabet than the transcripts), task.normalize (other than in "
                "pretraining)",
                updates,
            )
        self.verdict_at = None


class Batch(NamedTuple):
    """Logits and targets of one batch.

    The objective sees only utterances with a CTC path; see :meth:`keep`.
    """

    logits: dict[int, Tensor]  # layer count -> (T, B, V), the exits of the trained model
    guide: Tensor | None  # (T, B, V), logits of a separate teacher
    frames: Tensor  # (B,) real frames
    targets: Tensor  # (B, S)
    target_lengths: Tensor  # (B,)

    def keep(self, kept: Tensor) -> "Batch":
        """Select utterances by a (B,) mask; if all are kept, no tensor is copied."""
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
    """Base of the criteria for model ``skd_ctc``; a subclass defines the objective.

    Every term is a sum over real frames and utterances. fairseq divides it by ``sample_size``:
    target units, or sentences with ``sentence_avg``.
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
        """Return the loss of a batch and its unweighted terms, which are logged."""

    @abstractmethod
    def watched(self, batch: Batch) -> dict[str, Tensor]:
        """Return the (T, B, V) logits whose blanks are counted, as ``teacher`` and ``student``."""

    def guide(self, model: Any, sample: Mapping[str, Any]) -> Tensor | None:
        """Return (T, B, V) logits of a separate teacher; None without one."""
        return None

    def forward(self, model: Any, sample: Mapping[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict[str, Any]]:
        """Compute the loss of a batch, its sample size, and the sums for :meth:`reduce_metrics`.

        Raises:
            UserError: the batch has no target, or the model is not ``skd_ctc``.
        """
        if "target" not in sample:
            raise UserError("the task gives no 'target': set task.single_target=true and task.fine_tuning=true")
        net_output = model(**sample["net_input"])
        if "exit_logits" not in net_output:
            raise UserError(f"criterion {self.cfg._name} needs the model skd_ctc: set model._name=skd_ctc")
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
        """Sum the CTC loss of one exit over the batch."""
        if batch.frames.numel() == 0:  # a zero with a gradient: data-parallel training waits for each head
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
        """Count real frames, and the blank ones among them at each watched exit."""
        real = losses.frame_mask(batch.frames, next(iter(batch.logits.values())).size(0))
        counts = {"frames": real.sum()}
        for name, logits in self.watched(batch).items():
            counts[f"blanks_{name}"] = ((logits.argmax(dim=-1) == self.blank) & real).sum()
        return counts

    @torch.no_grad()
    def _errors(self, batch: Batch) -> dict[str, int]:
        """Count word and unit errors of every exit, and words and units of the references."""
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
        """Sum the outputs of all workers and micro-batches, and log the result."""
        log_metrics(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Tell fairseq that it may sum the outputs of several workers."""
        return True


def _errors(hypotheses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]) -> int:
    return sum(count_errors(*pair).errors for pair in zip(hypotheses, references, strict=True))
