"""What all criteria of the package share: a batch to the exits' CTC, and what is logged of it."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.data.data_utils import post_process
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.criterions import reporting
from fairseq_skd.criterions.configuration import CtcKeys, beam_search, check_ctc
from fairseq_skd.errors import UserError
from fairseq_skd.objective import losses
from fairseq_skd.scoring.error_rates import count_errors
from fairseq_skd.search.greedy import greedy_units


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

    TRAINED = "student"  # which of the watched is the model's last exit

    def __init__(self, cfg: CtcKeys, task: FairseqTask) -> None:
        super().__init__(task)
        check_ctc(cfg)
        self.cfg: Any = cfg
        self.dictionary = task.target_dictionary
        blank = getattr(task, "blank_symbol", None)
        self.blank = self.dictionary.index(blank) if blank is not None else 0
        self.search = beam_search(cfg, self.dictionary, self.blank)
        self.plateau = reporting.BlankPlateau(cfg.max_update)

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
        reporting.log_metrics(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All that is logged is a sum."""
        return True


def _errors(hypotheses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]) -> int:
    return sum(count_errors(*pair).errors for pair in zip(hypotheses, references, strict=True))
