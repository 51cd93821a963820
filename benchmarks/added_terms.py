"""What a self-student adds to a training step, each part timed alone on tensors of the step's own shapes."""

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
    """Seconds of each part, forward and backward, ``repeats`` times.

    Args:
        model: in training mode, with one student.
        criterion: its criterion.
        sample: a batch on the model's device, in its precision.
        repeats: measurements of each part, after some to warm up.
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
    """One round of each part. Gradients of a part's inputs are made as in a step, then dropped."""

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
        padded = self.frames + self.frames % 2  # as the attention works on it
        self.hidden = torch.randn(padded, utterances, head.proj.in_features).to(self.student)
        self.mask = losses.frame_mask(self.batch.frames, self.frames)
        copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in self.parameters]
        for parameter in copies:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.Adam(copies)

    def head(self) -> None:
        """Hidden states to logits."""
        x = self.hidden[: self.frames].detach().requires_grad_()
        logits = self.student_head(x, self.model.final_dropout)
        torch.autograd.grad(logits, [x, *self.parameters], torch.ones_like(logits))

    def ctc(self) -> None:
        """Logits to the student's CTC loss."""
        x = self.student.detach().requires_grad_()
        torch.autograd.grad(self.criterion.ctc(x, self.batch), x)

    def distillation(self) -> None:
        """Logits of both to L_SKD."""
        x = self.student.detach().requires_grad_()
        cfg = self.criterion.cfg
        loss = losses.frame_kl(self.teacher, x, self.batch.frames, cfg.temperature, cfg.stop_gradient)
        torch.autograd.grad(loss, x)

    def weighting(self) -> None:
        """Terms to the loss."""
        teacher, ctc, skd = (torch.ones((), device=self.hidden.device, requires_grad=True) for _ in range(3))
        alpha = self.criterion.schedule(self.model.num_updates)
        loss = losses.combine(teacher, [ctc + self.criterion.cfg.kd_weight * skd], alpha)
        torch.autograd.grad(loss, [teacher, ctc, skd])

    def tap(self) -> None:
        """The tapped layer has a second consumer, whose gradient is brought to size and added."""
        x = self.hidden.detach().requires_grad_()
        tapped = x[: self.frames]
        (gradient,) = torch.autograd.grad(tapped, x, self.hidden[: self.frames])
        gradient.add_(self.hidden)

    def blanks(self) -> None:
        """Logits to the number of blank frames."""
        ((self.student.argmax(dim=-1) == self.criterion.blank) & self.mask).sum()


def _seconds(part: Callable[[], object], device: torch.device) -> float:
    started = now(device)
    part()
    return now(device) - started
