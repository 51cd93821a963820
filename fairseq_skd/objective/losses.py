"""The terms of the objective, each summed over the batch.

All terms are computed in float32, whatever the model's precision. Each takes model outputs of
shape (T, B, V) and the number of real frames per utterance. CTC takes log posteriors, all other
terms take logits. Padded frames change neither a value nor a gradient.

A distillation term can use a subset of the frames (docs/method.md, section 3; Hilmes et al. 2025).
Only the teacher's posteriors select them. CTC posteriors are mostly blank, so a plain sum over few
frames would be many times smaller than the sum over all frames, and the smaller weight would look
like an effect of the selection. Therefore the selected frames of an utterance together weigh as
much as all its frames.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_skd.errors import UserError

_LONGEST = 1_000_000  # frames: an utterance of more than five hours
SELECTIONS = "all, nonblank, symmetric:N, trim, threshold:P"


@dataclass(frozen=True)
class FrameSelection:
    """The frames that a distillation term uses.

    ================ ==============================================================
    ``all``          every real frame
    ``nonblank``     frames where the teacher's best symbol is not the blank
    ``symmetric:N``  the non-blank frames, and N frames on both sides of each
    ``trim``         from the first non-blank frame to the last
    ``threshold:P``  frames where the teacher's blank posterior is below P
    ================ ==============================================================

    >>> teacher = torch.eye(2)[[0, 1, 0, 0]].unsqueeze(1)  # (T, B, V); best: blank, 1, blank, blank
    >>> FrameSelection.parse("symmetric:1").weights(teacher, torch.tensor([4])).flatten()
    tensor([1.3333, 1.3333, 1.3333, 0.0000])

    Attributes:
        name: the word before the colon.
        reach: N of ``symmetric``, frames.
        threshold: P of ``threshold``, a probability.
        plain_sum: whether each selected frame weighs 1. Otherwise it weighs (real frames /
            selected frames) of its utterance.
    """

    name: str = "all"
    reach: int = 0
    threshold: float = 1.0
    plain_sum: bool = False

    @classmethod
    def parse(cls, text: str, plain_sum: bool = False) -> "FrameSelection":
        """Parse the text of ``criterion.frames``.

        Raises:
            UserError: the text is not one of :data:`SELECTIONS`, or its number is out of range.
        """
        name, colon, number = text.partition(":")
        try:
            if name in ("all", "nonblank", "trim") and not colon:
                return cls(name, plain_sum=plain_sum)
            if name == "symmetric" and number.isdecimal() and int(number) <= _LONGEST:
                return cls(name, reach=int(number), plain_sum=plain_sum)
            if name == "threshold" and 0 < float(number) <= 1:
                return cls(name, threshold=float(number), plain_sum=plain_sum)
        except ValueError:
            pass
        raise UserError(
            f"criterion.frames={text} is not known: choose one of {SELECTIONS}, "
            f"with N a number of frames up to {_LONGEST:,} and P a probability above 0 and at most 1"
        )

    def weights(self, teacher_logits: Tensor, frame_lengths: Tensor, blank: int = 0) -> Tensor | None:
        """Weigh each frame for a distillation term.

        Args:
            teacher_logits: (T, B, V).
            frame_lengths: (B,) real frames.
            blank: index of the blank symbol.

        Returns:
            (T, B) float32, 0 on padded and on unselected frames; None stands for 1 on every real
            frame. An utterance without a selected frame has weight 0.
        """
        if self.name == "all":
            return None
        real = frame_mask(frame_lengths, teacher_logits.size(0))
        kept = (self._kept(teacher_logits.detach(), real, blank) & real).float()
        if self.plain_sum:
            return kept
        return kept * (frame_lengths / kept.sum(dim=0).clamp(min=1))

    def _kept(self, logits: Tensor, real: Tensor, blank: int) -> Tensor:
        """Select frames: (T, B) bool. Padded frames can be true."""
        if self.name == "threshold":
            return torch.log_softmax(logits.float(), dim=-1)[..., blank] < math.log(self.threshold)
        spoken = (logits.argmax(dim=-1) != blank) & real
        seen = spoken.cumsum(dim=0)  # non-blank frames up to and including this one
        if self.name == "trim":
            return (seen > 0) & (seen - spoken.long() < seen[-1])
        if self.name == "symmetric":
            frames = torch.arange(len(seen), device=seen.device)
            after = seen[(frames + self.reach).clamp(max=len(seen) - 1)]
            before = seen[(frames - self.reach - 1).clamp(min=0)] * (frames > self.reach).unsqueeze(1)
            return after > before
        return spoken


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Make a mask from lengths: (B,) -> (T, B) bool, true on real frames."""
    return torch.arange(frames, device=lengths.device).unsqueeze(1) < lengths


def feasible(targets: Tensor, target_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """Tell which utterances have a CTC path.

    A path needs one frame per unit, and one frame per blank between two equal units.

    >>> feasible(torch.tensor([[3, 3], [3, 4]]), torch.tensor([2, 2]), torch.tensor([2, 2]))
    tensor([False,  True])

    Args:
        targets: (B, S) unit indices; entries beyond ``target_lengths`` have no meaning.
        target_lengths: (B,) units.
        frame_lengths: (B,) real frames.

    Returns:
        (B,) bool.
    """
    positions = torch.arange(targets.size(1), device=targets.device)[1:]  # units with a left neighbour
    repeats = (targets[:, 1:] == targets[:, :-1]) & (positions < target_lengths.unsqueeze(1))
    return target_lengths + repeats.sum(dim=1) <= frame_lengths


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    frame_lengths: Tensor,
    target_lengths: Tensor,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Tensor:
    """CTC loss: the negative log likelihood in nats, summed over the batch.

    It is L_teacher, and the first term of L_student.

    >>> log_probs = torch.tensor([0.25, 0.75]).log().expand(2, 1, 2)  # (T, B, V)
    >>> loss = ctc_loss(log_probs, torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1]))
    >>> print(f"{(-loss).exp():.4f}")  # all paths but blank, blank: 1 - 0.25 ** 2
    0.9375

    Args:
        log_probs: (T, B, V), float32.
        targets: (B, S) unit indices.
        frame_lengths: (B,) real frames.
        target_lengths: (B,) units.
        blank: index of the blank symbol.
        zero_infinity: whether infinite losses and their gradients become zero.

    Returns:
        a scalar.
    """
    # cuDNN's kernel needs int32 targets, and differs from the CPU on infeasible targets.
    with torch.backends.cudnn.flags(enabled=False):
        return F.ctc_loss(
            log_probs,
            targets,
            frame_lengths,
            target_lengths,
            blank=blank,
            reduction="sum",
            zero_infinity=zero_infinity,
        )


def frame_kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    frame_lengths: Tensor,
    temperature: float = 1.0,
    stop_gradient: bool = True,
    weights: Tensor | None = None,
) -> Tensor:
    """L_SKD of the paper: KL(p_T(t) || p_S(t)) in nats, summed over real frames and the batch.

    The CTC loss is also a sum over the frames, so both terms of the student's loss grow alike with
    the length of an utterance.

    >>> teacher = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log()  # (T, B, V)
    >>> student = torch.tensor([[[0.25, 0.75]], [[0.9, 0.1]]]).log()
    >>> print(f"{frame_kl(teacher, student, torch.tensor([2])):.4f}")  # ln(2) / 2 + ln(2 / 3) / 2
    0.1438

    Args:
        teacher_logits: (T, B, V).
        student_logits: (T, B, V).
        frame_lengths: (B,) real frames.
        temperature: divides both logits. The term is multiplied by its square, which keeps the
            scale of the gradient.
        stop_gradient: whether the teacher gets no gradient.
        weights: (T, B), one per frame, see
            :meth:`~fairseq_skd.objective.losses.FrameSelection.weights`; None: 1 on real frames.

    Returns:
        a scalar, float32.
    """
    if stop_gradient:
        teacher_logits = teacher_logits.detach()
    counted, weight = _counted(weights, frame_lengths, teacher_logits.size(0))
    # Select before the softmax: padded frames then cost nothing and cannot become NaN.
    # (T, B, V) -> (N, V)
    teacher = F.log_softmax(teacher_logits[counted].float() / temperature, dim=-1)
    student = F.log_softmax(student_logits[counted].float() / temperature, dim=-1)
    if weight is None:
        return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return (weight * divergence).sum() * temperature**2


def softmax_distance(
    teacher_logits: Tensor,
    student_logits: Tensor,
    frame_lengths: Tensor,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Squared distance of two posteriors, summed over frames and batch: softmax-level KD, TutorNet.

    sum_t || softmax(z_T(t) / temperature) - softmax(z_S(t) / temperature) ||^2

    The teacher gets no gradient. Arguments and result are as in :func:`frame_kl`, but there is no
    factor temperature^2, because the published formula has none.

    >>> teacher, student = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.2, 0.8]]]).log()
    >>> print(f"{softmax_distance(teacher, student, torch.tensor([1])):.2f}")  # 0.3^2 + 0.3^2
    0.18
    """
    counted, weight = _counted(weights, frame_lengths, teacher_logits.size(0))
    teacher = torch.softmax(teacher_logits.detach()[counted].float() / temperature, dim=-1)
    student = torch.softmax(student_logits[counted].float() / temperature, dim=-1)
    distance = (teacher - student).square().sum(dim=-1)
    return distance.sum() if weight is None else (weight * distance).sum()


def guide_loss(
    guide_logits: Tensor,
    student_logits: Tensor,
    frame_lengths: Tensor,
    blank: int = 0,
    weights: Tensor | None = None,
) -> Tensor:
    """L_G of Guide-CTC: the negative posterior of the student at each spike of the guide.

    L_G = - sum_t sum_k M(t, k) p_S(t, k), with M(t, k) = 1 where k is the guide's best symbol and
    not the blank (Kurata and Audhkhasi 2019). The sum is over posteriors, not their logarithms.

    >>> guide = torch.tensor([[[0.1, 0.9]], [[0.9, 0.1]]]).log()  # a spike, then a blank
    >>> student = torch.tensor([[[0.4, 0.6]], [[0.5, 0.5]]]).log()
    >>> print(f"{guide_loss(guide, student, torch.tensor([2])):.1f}")
    -0.6

    Args:
        guide_logits: (T, B, V).
        student_logits: (T, B, V).
        frame_lengths: (B,) real frames.
        blank: index of the blank symbol.
        weights: as in :func:`frame_kl`.

    Returns:
        a scalar, float32, negative or 0.
    """
    counted, weight = _counted(weights, frame_lengths, guide_logits.size(0))
    best = guide_logits[counted].argmax(dim=-1)  # (N,)
    posterior = torch.softmax(student_logits[counted].float(), dim=-1).gather(1, best.unsqueeze(1)).squeeze(1)
    agreed = posterior * (best != blank)
    return -(agreed.sum() if weight is None else (weight * agreed).sum())


def _counted(weights: Tensor | None, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
    """Return the mask of the frames in a term, (T, B) bool, and their weights, (N,) or None."""
    if weights is None:
        return frame_mask(lengths, frames), None
    counted = weights > 0
    return counted, weights[counted]


def combine(teacher_loss: Tensor, student_losses: list[Tensor], alpha: float) -> Tensor:
    """(1 - alpha) L_teacher + alpha L_student, where L_student is the mean over the students.

    Without students it is L_teacher.

    >>> combine(torch.tensor(10.0), [torch.tensor(2.0), torch.tensor(4.0)], alpha=0.5)
    tensor(6.5000)
    """
    if not student_losses:
        return teacher_loss
    return (1 - alpha) * teacher_loss + alpha * torch.stack(student_losses).mean()
