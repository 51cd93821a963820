"""Criterion ``skd_ctc``: self-knowledge distillation between the exits of one model."""

from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.criterions.config import SkdCtcCriterionConfig, alpha_of, distillation_of
from fairseq_skd.criterions.ctc import Batch, CtcCriterion
from fairseq_skd.objective import losses


@register_criterion("skd_ctc", dataclass=SkdCtcCriterionConfig)
class SkdCtcCriterion(CtcCriterion):
    """L = (1 - alpha) L_teacher + alpha L_student, with L_student = L_CTC + kd_weight L_SKD.

    With several students, L_student is the mean of their losses. Without students, L = L_teacher.
    docs/method.md, section 1, has the formulas.
    """

    TRAINED = "teacher"

    def __init__(self, cfg: SkdCtcCriterionConfig, task: FairseqTask) -> None:
        super().__init__(cfg, task)
        self.frames, self.kd_weight = distillation_of(cfg)
        self.schedule = alpha_of(cfg)

    def objective(self, batch: Batch, updates: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss and its unweighted terms, averaged over students."""
        (_, teacher), *students = batch.logits.items()
        terms: dict[str, Any] = {"ctc_teacher": self.ctc(teacher, batch)}
        if not students:
            return terms["ctc_teacher"], terms
        weights = self.frames.weights(teacher, batch.frames, self.blank)
        ctc = [self.ctc(student, batch) for _, student in students]
        distilled = [
            losses.frame_kl(teacher, student, batch.frames, self.cfg.temperature, self.cfg.stop_gradient, weights)
            for _, student in students
        ]
        alpha = self.schedule(updates)
        kd_weight = self.kd_weight(updates)
        student_losses = [a + kd_weight * b for a, b in zip(ctc, distilled, strict=True)]
        loss = losses.combine(terms["ctc_teacher"], student_losses, alpha)
        terms |= {"ctc_student": torch.stack(ctc).mean(), "skd": torch.stack(distilled).mean(), "alpha_sum": alpha}
        return loss, terms

    def watched(self, batch: Batch) -> dict[str, Tensor]:
        """Return the logits of the teacher and of the first student, if there is one."""
        return dict(zip(("teacher", "student"), batch.logits.values(), strict=False))
