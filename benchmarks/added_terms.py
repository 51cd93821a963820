"""What a self-student adds to a training step, each part timed alone on tensors of the step's own shapes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gauges import now
from fairseq_skd.criterions.skd_ctc import Batch, SkdCtcCriterion
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
    with torch.no_grad():
        net_output = model(**sample["net_input"])
    targets = sample["target"]
    real = (targets != criterion.dictionary.pad()) & (targets != criterion.dictionary.eos())
    batch = Batch(net_output["exit_logits"], net_output["frame_lengths"], targets, real.sum(dim=1))
    parts = _parts(model, criterion, batch)
    return {name: [_seconds(part, batch.frames.device) for _ in range(WARM_UP + repeats)][WARM_UP:]
            for name, part in parts.items()}  # fmt: skip


def _parts(model: SkdCtc, criterion: SkdCtcCriterion, batch: Batch) -> dict[str, Callable[[], object]]:
    """Name -> one round of a part. Gradients of the inputs are made as in a step, then dropped."""
    (_, teacher), (layer, student) = batch.logits.items()
    head = model.student_heads[str(layer)]
    frames, utterances, _ = student.shape
    width = head.proj.in_features
    hidden = torch.randn(frames + frames % 2, utterances, width).to(student)  # as the attention pads it
    upstream = torch.randn_like(student)
    tapped = torch.randn_like(hidden[:frames])
    mask = losses.frame_mask(batch.frames, frames)
    alpha = criterion.schedule(0)
    head_parameters = list(head.parameters())

    def projection() -> None:
        x = hidden[:frames].detach().requires_grad_()
        torch.autograd.grad(head(x, model.final_dropout), [x, *head_parameters], upstream)

    def student_ctc() -> None:
        x = student.detach().requires_grad_()
        torch.autograd.grad(criterion._ctc(x, batch), x)

    def distillation() -> None:
        x = student.detach().requires_grad_()
        loss = losses.frame_kl(teacher, x, batch.frames, criterion.cfg.temperature, criterion.cfg.stop_gradient)
        torch.autograd.grad(loss, x)

    def weighting() -> None:
        terms = [torch.ones((), device=student.device, requires_grad=True) for _ in range(3)]
        student_loss = terms[1] + criterion.cfg.kd_weight * terms[2]
        criterion.schedule(model.num_updates)
        torch.autograd.grad(losses.combine(terms[0], [student_loss], alpha), terms)

    def tap() -> None:
        """The tapped layer has a second consumer: its gradient is cut to size and added."""
        x = hidden.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(x[:frames], x, tapped)
        gradient.add_(hidden)

    def blanks() -> Tensor:
        return ((student.argmax(dim=-1) == criterion.blank) & mask).sum()

    optimizer = torch.optim.Adam([torch.nn.Parameter(parameter.detach().clone()) for parameter in head_parameters])
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)

    return {
        "student head": projection,
        "CTC of the student": student_ctc,
        "L_SKD": distillation,
        "alpha and the weighted sum": weighting,
        "second gradient at the tap": tap,
        "blanks counted for the log": blanks,
        "Adam on the head": optimizer.step,
    }


def _seconds(part: Callable[[], object], device: torch.device) -> float:
    started = now(device)
    part()
    return now(device) - started
