"""Time each part that SKD adds to a training step, alone, on tensors of the step's shapes."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gauges import now
from fairseq_skd.criterions.ctc import Batch
from fairseq_skd.criterions.skd_ctc import SkdCtcCriterion
from fairseq_skd.models.heads import StudentHead
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.objective import losses

WARM_UP = 3


def time_added_terms(
    model: SkdCtc, criterion: SkdCtcCriterion, sample: dict[str, Any], repeats: int
) -> dict[str, list[float]]:
    """Time each part, forward and backward, ``repeats`` times.

    Args:
        model: model in training mode, with one student.
        criterion: the model's criterion.
        sample: batch on the model's device, in its precision.
        repeats: measurements of each part, after the warm-up.

    Returns:
        part -> seconds of each measurement.
    """
    added = AddedTerms(model, criterion, sample)
    parts: dict[str, Callable[[], object]] = {
        "student head": added.head,
        "CTC of the student": added.ctc,
        "L_SKD": added.distillation,
        "alpha and the weighted sum": added.weighting,
        "second gradient at the tap": added.tap,
        "blanks counted for the log": added.blanks,
        "Adam on the head": added.optimizer.step,
    }
    device = added.hidden.device
    return {name: [_seconds(part, device) for _ in range(WARM_UP + repeats)][WARM_UP:] for name, part in parts.items()}


class AddedTerms:
    """The parts as methods. Each computes gradients as a step does, then drops them."""

    def __init__(self, model: SkdCtc, criterion: SkdCtcCriterion, sample: dict[str, Any]) -> None:
        with torch.no_grad():
            net_output = model(**sample["net_input"])
        targets = sample["target"]
        real = (targets != criterion.dictionary.pad()) & (targets != criterion.dictionary.eos())
        self.batch = Batch(net_output["exit_logits"], None, net_output["frame_lengths"], targets, real.sum(dim=1))
        self.model, self.criterion = model, criterion
        (_, self.teacher), (layer, self.student) = self.batch.logits.items()
        head = model.student_heads[str(layer)]
        assert isinstance(head, StudentHead)
        self.student_head = head
        self.parameters = list(head.parameters())
        self.frames, utterances, _ = self.student.shape
        padded = self.frames + self.frames % 2  # as in the attention
        self.hidden = torch.randn(padded, utterances, head.proj.in_features).to(self.student)
        self.mask = losses.frame_mask(self.batch.frames, self.frames)
        copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in self.parameters]
        for parameter in copies:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.Adam(copies)

    def head(self) -> None:
        """Compute logits from hidden states."""
        x = self.hidden[: self.frames].detach().requires_grad_()
        logits = self.student_head(x, self.model.final_dropout)
        torch.autograd.grad(logits, [x, *self.parameters], torch.ones_like(logits))

    def ctc(self) -> None:
        """Compute the student's CTC loss from logits."""
        x = self.student.detach().requires_grad_()
        torch.autograd.grad(self.criterion.ctc(x, self.batch), x)

    def distillation(self) -> None:
        """Compute L_SKD from the logits of teacher and student."""
        x = self.student.detach().requires_grad_()
        cfg = self.criterion.cfg
        loss = losses.frame_kl(self.teacher, x, self.batch.frames, cfg.temperature, cfg.stop_gradient)
        torch.autograd.grad(loss, x)

    def weighting(self) -> None:
        """Compute alpha and the weighted sum of the terms."""
        teacher, ctc, skd = (torch.ones((), device=self.hidden.device, requires_grad=True) for _ in range(3))
        alpha = self.criterion.schedule(self.model.num_updates)
        loss = losses.combine(teacher, [ctc + self.criterion.cfg.kd_weight * skd], alpha)
        torch.autograd.grad(loss, [teacher, ctc, skd])

    def tap(self) -> None:
        """Pad the gradient of the second consumer of the tapped layer, and add it."""
        x = self.hidden.detach().requires_grad_()
        tapped = x[: self.frames]
        (gradient,) = torch.autograd.grad(tapped, x, self.hidden[: self.frames])
        gradient.add_(self.hidden)

    def blanks(self) -> None:
        """Count blank frames."""
        ((self.student.argmax(dim=-1) == self.criterion.blank) & self.mask).sum()


def _seconds(part: Callable[[], object], device: torch.device) -> float:
    started = now(device)
    part()
    return now(device) - started
