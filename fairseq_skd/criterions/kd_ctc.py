"""Criterion ``kd_ctc``: distillation from a separate frozen teacher (docs/method.md, section 2)."""

from collections.abc import Mapping
from typing import Any

from fairseq.criterions import register_criterion
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.criterions.config import KdCtcCriterionConfig, check_method, distillation_of
from fairseq_skd.criterions.ctc import Batch, CtcCriterion
from fairseq_skd.objective import losses


@register_criterion("kd_ctc", dataclass=KdCtcCriterionConfig)
class KdCtcCriterion(CtcCriterion):
    """L = L_CTC + kd_weight L_KD, where L_KD compares model and separate teacher frame by frame.

    ============== =============================================================
    ``guide``      Guide-CTC: minus the model's posterior at the teacher's spikes
    ``softmax_l2`` squared distance of the posteriors (softmax-level KD)
    ``softmax_kl`` KL(teacher || model), the same form as L_SKD
    ============== =============================================================

    The model has one exit, at its full depth (``model.student_layers=[]``). ``model.keep_layers``
    makes it smaller.
    """

    def __init__(self, cfg: KdCtcCriterionConfig, task: FairseqTask) -> None:
        # Imported here: the recognizer imports the models, and registration imports this module.
        from fairseq_skd.criterions.teacher import FrozenTeacher

        super().__init__(cfg, task)
        check_method(cfg)
        self.frames, self.kd_weight = distillation_of(cfg)
        # Not an nn.Module: fairseq would save, wrap and train it with the criterion.
        self.teacher = FrozenTeacher.open(cfg, task)

    def guide(self, model: Any, sample: Mapping[str, Any]) -> Tensor:
        """Run the teacher over the same audio, without masks; returns (T, B, V) logits."""
        return self.teacher(sample["net_input"], model)

    def objective(self, batch: Batch, updates: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss and its two unweighted terms."""
        (student,), teacher = batch.logits.values(), batch.guide
        assert teacher is not None
        weights = self.frames.weights(teacher, batch.frames, self.blank)
        if self.cfg.method == "guide":
            distilled = losses.guide_loss(teacher, student, batch.frames, self.blank, weights)
        elif self.cfg.method == "softmax_l2":
            distilled = losses.softmax_distance(teacher, student, batch.frames, self.cfg.temperature, weights)
        else:
            distilled = losses.frame_kl(teacher, student, batch.frames, self.cfg.temperature, weights=weights)
        terms = {"ctc": self.ctc(student, batch), "kd": distilled}
        return terms["ctc"] + self.kd_weight(updates) * distilled, terms

    def watched(self, batch: Batch) -> dict[str, Tensor]:
        """Return the logits of the separate teacher and of the model."""
        (student,), teacher = batch.logits.values(), batch.guide
        assert teacher is not None
        return {"teacher": teacher, "student": student}
