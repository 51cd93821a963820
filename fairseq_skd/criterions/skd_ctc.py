"""The criterion ``skd_ctc``: a batch through the model into the terms of the objective, and into what is logged."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.data.data_utils import post_process
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.criterions import reporting
from fairseq_skd.criterions.configuration import SkdCtcCriterionConfig, beam_search, check
from fairseq_skd.errors import UserError
from fairseq_skd.objective import losses
from fairseq_skd.objective.schedule import AlphaSchedule
from fairseq_skd.scoring.errors import count_errors
from fairseq_skd.scoring.greedy import greedy_units


class Batch(NamedTuple):
    """Targets beside the exits' logits of one batch, utterances without a CTC path left out."""

    logits: dict[int, Tensor]  # layer count -> (T, B, V)
    frames: Tensor  # (B,) real frames
    targets: Tensor  # (B, S)
    target_lengths: Tensor  # (B,)


@register_criterion("skd_ctc", dataclass=SkdCtcCriterionConfig)
class SkdCtcCriterion(FairseqCriterion):
    """L = (1 - alpha) L_teacher + alpha L_student, L_student = L_CTC + kd_weight L_SKD (method section 1).

    Every term is a sum over real frames and utterances; fairseq divides by ``sample_size`` (target units, or sentences
    with ``sentence_avg``). Several students: the mean of their losses. No student: L_teacher.
    """

    def __init__(self, cfg: SkdCtcCriterionConfig, task: FairseqTask) -> None:
        super().__init__(task)
        check(cfg)
        self.cfg = cfg
        self.schedule = AlphaSchedule(cfg.schedule, cfg.max_update, cfg.tau, cfg.alpha)
        self.dictionary = task.target_dictionary
        blank = getattr(task, "blank_symbol", None)
        self.blank = self.dictionary.index(blank) if blank is not None else 0
        self.search = beam_search(cfg, self.dictionary, self.blank)
        self.plateau = reporting.BlankPlateau(cfg.max_update)

    def forward(self, model: Any, sample: Mapping[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss of a batch, its sample size, and the sums that :meth:`reduce_metrics` logs."""
        if "target" not in sample:
            raise UserError("the task gives no 'target': set task.single_target=true and task.fine_tuning=true")
        net_output = model(**sample["net_input"])
        if "exit_logits" not in net_output:
            raise UserError("criterion skd_ctc works with model._name=skd_ctc only")
        targets = sample["target"]
        real = (targets != self.dictionary.pad()) & (targets != self.dictionary.eos())
        batch = Batch(net_output["exit_logits"], net_output["frame_lengths"], targets, real.sum(dim=1))
        feasible = losses.feasible(batch.targets, batch.target_lengths, batch.frames)
        alpha = self.schedule(model.num_updates)
        loss, terms = self._objective(_keep(batch, feasible), alpha)

        ntokens = sample["ntokens"] if "ntokens" in sample else int(batch.target_lengths.sum())
        sample_size = targets.size(0) if self.cfg.sentence_avg else ntokens
        log: dict[str, Any] = {name: value.detach() for name, value in terms.items()}
        log.update(
            loss=loss.detach(),
            ntokens=ntokens,
            nsentences=targets.size(0),
            sample_size=sample_size,
            infeasible=(~feasible).sum(),
            batches=1,
            **self._blanks(batch),
        )
        if len(batch.logits) > 1:
            log["alpha_sum"] = alpha
        if model.training:
            self.plateau.watch(model.num_updates, log["frames"], log["blanks_teacher"])
        else:
            log.update(self._errors(batch))
        return loss, sample_size, log

    def _objective(self, batch: Batch, alpha: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms before they are weighed (those of the students averaged over students)."""
        (_, teacher), *students = batch.logits.items()
        if batch.frames.numel() == 0:  # a loss that is zero but reaches every head, for data-parallel training
            zero = torch.stack([logits.float().sum() for logits in batch.logits.values()]).sum()
            return zero, dict.fromkeys(("ctc_teacher", *(("ctc_student", "skd") if students else ())), zero)
        terms = {"ctc_teacher": self._ctc(teacher, batch)}
        ctc = [self._ctc(student, batch) for _, student in students]
        distilled = [
            losses.frame_kl(teacher, student, batch.frames, self.cfg.temperature, self.cfg.stop_gradient)
            for _, student in students
        ]
        if students:
            terms["ctc_student"] = torch.stack(ctc).mean()
            terms["skd"] = torch.stack(distilled).mean()
        student_losses = [a + self.cfg.kd_weight * b for a, b in zip(ctc, distilled, strict=True)]
        return losses.combine(terms["ctc_teacher"], student_losses, alpha), terms

    def _ctc(self, logits: Tensor, batch: Batch) -> Tensor:
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
        """Real frames, and how many of them are blank for the teacher and for the first student."""
        real = losses.frame_mask(batch.frames, next(iter(batch.logits.values())).size(0))
        counts = {"frames": real.sum()}
        for name, logits in zip(("blanks_teacher", "blanks_student"), batch.logits.values(), strict=False):
            counts[name] = ((logits.argmax(dim=-1) == self.blank) & real).sum()
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


def _keep(batch: Batch, kept: Tensor) -> Batch:
    """The batch without the utterances that are not kept; the very same tensors when all are."""
    if bool(kept.all()):
        return batch
    return Batch(
        {layer: logits[:, kept] for layer, logits in batch.logits.items()},
        batch.frames[kept],
        batch.targets[kept],
        batch.target_lengths[kept],
    )
