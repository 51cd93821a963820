"""The terms of the objective, each summed over the batch, in float32 whatever the model's precision.

All of them take outputs of layout (T, B, V), CTC log posteriors and the others logits, and the number of real frames of
each utterance; padded frames and utterances left out never enter, neither in the value nor in the gradient.

A distillation term may look at some frames only (docs/method.md, section 3; Hilmes et al. 2025). The teacher's
posteriors alone decide which. CTC posteriors are mostly blank, so a plain sum over the kept frames would be many times
smaller than one over all frames, and a change of weight would pass for an effect of masking: the kept frames of an
utterance therefore weigh as much together as all its frames did.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_skd.errors import UserError

_LONGEST = 1_000_000  # frames, of an utterance of more than five hours
SELECTIONS = "all, nonblank, symmetric:N, trim, threshold:P"


@dataclass(frozen=True)
class FrameSelection:
    """A choice of frames.

    ================ ==============================================================
    ``all``          every real frame
    ``nonblank``     the teacher's best symbol is not the blank
    ``symmetric:N``  those, and N frames on both sides of each
    ``trim``         from the first non-blank frame to the last
    ``threshold:P``  the teacher gives the blank less than P
    ================ ==============================================================

    Attributes:
        name: the word before the colon.
        reach: N of ``symmetric``, frames.
        threshold: P of ``threshold``, a probability.
        plain_sum: each kept frame weighs 1; otherwise (real frames / kept frames) of its utterance.
    """

    name: str = "all"
    reach: int = 0
    threshold: float = 1.0
    plain_sum: bool = False

    @classmethod
    def parse(cls, text: str, plain_sum: bool = False) -> "FrameSelection":
        """Read ``criterion.frames``.

        Raises:
            UserError: not one of :data:`SELECTIONS`, or its number is out of range.
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
        """The weight of each frame in a distillation term.

        Args:
            teacher_logits: (T, B, V).
            frame_lengths: (B,) real frames.
            blank: index of the blank symbol.

        Returns:
            (T, B) float32, 0 on padded frames and on those that are not kept; None stands for 1 on every real frame.
            An utterance of which nothing is kept weighs nothing.
        """
        if self.name == "all":
            return None
        real = frame_mask(frame_lengths, teacher_logits.size(0))
        kept = (self._kept(teacher_logits.detach(), real, blank) & real).float()
        if self.plain_sum:
            return kept
        return kept * (frame_lengths / kept.sum(dim=0).clamp(min=1))

    def _kept(self, logits: Tensor, real: Tensor, blank: int) -> Tensor:
        """(T, B) bool; frames beyond the real ones may be true."""
        if self.name == "threshold":
            return torch.log_softmax(logits.float(), dim=-1)[..., blank] < math.log(self.threshold)
        spoken = (logits.argmax(dim=-1) != blank) & real
        seen = spoken.cumsum(dim=0)  # non-blank frames up to and with this one
        if self.name == "trim":
            return (seen > 0) & (seen - spoken.long() < seen[-1])
        if self.name == "symmetric":
            frames = torch.arange(len(seen), device=seen.device)
            after = seen[(frames + self.reach).clamp(max=len(seen) - 1)]
            before = seen[(frames - self.reach - 1).clamp(min=0)] * (frames > self.reach).unsqueeze(1)
            return after > before
        return spoken


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B,) lengths -> (T, B) bool, true on real frames."""
    return torch.arange(frames, device=lengths.device).unsqueeze(1) < lengths


def feasible(targets: Tensor, target_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """Which utterances have a CTC path at all: a frame a unit, and a blank between equal neighbours.

    Args:
        targets: (B, S) unit indices, anything beyond ``target_lengths``.
        target_lengths: (B,) units.
        frame_lengths: (B,) real frames.

    Returns:
        (B,) bool.
    """
    positions = torch.arange(targets.size(1), device=targets.device)[1:]  # of each unit that has a left neighbour
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
    """CTC's negative log likelihood in nats, summed over the batch (L_teacher, and the first term of L_student).

    Args:
        log_probs: (T, B, V), float32.
        targets: (B, S).
        frame_lengths: (B,) real frames.
        target_lengths: (B,) units.
        blank: index of the blank symbol.
        zero_infinity: infinite losses and their gradients become zero.

    Returns:
        a scalar.
    """
    # The native kernel, not cuDNN's: that one wants int32 targets and differs from the CPU's on infeasible ones.
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
    """L_SKD: KL(p_T(t) || p_S(t)) in nats, summed over real frames and over the batch (paper: eq. of L_SKD).

    Summed like CTC's likelihood, so that both terms of the student's loss have the scale of an utterance.

    Args:
        teacher_logits: (T, B, V).
        student_logits: (T, B, V).
        frame_lengths: (B,) real frames.
        temperature: divides both logits; the term is multiplied by its square, which keeps the gradient's scale.
        stop_gradient: the teacher is a fixed target.
        weights: (T, B) of the frames, see :meth:`~fairseq_skd.objective.losses.FrameSelection.weights`; None: 1 each.

    Returns:
        a scalar, float32.
    """
    if stop_gradient:
        teacher_logits = teacher_logits.detach()
    counted, weight = _counted(weights, frame_lengths, teacher_logits.size(0))
    # Frames that count only, before the softmax: padded ones cost nothing and cannot turn into NaN. (T, B, V) -> (N, V)
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
    """Squared distance of two posteriors, summed over frames and over the batch (softmax-level KD, TutorNet).

    sum_t || softmax(z_T(t) / temperature) - softmax(z_S(t) / temperature) ||^2, the teacher a fixed target. Arguments
    and result are as in :func:`frame_kl`, but no factor for the temperature is applied: the formula has none.
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
    """L_G of Guide-CTC (Kurata and Audhkhasi 2019): minus the student's posterior at each spike frame of the guide.

    L_G = - sum_t sum_k M(t, k) p_S(t, k), with M(t, k) = 1 where k is the guide's best symbol and not the blank. The
    posterior itself is summed, not its logarithm.

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
    """(T, B) bool, the frames that enter a term, and the weights of those, (N,), if they have any."""
    if weights is None:
        return frame_mask(lengths, frames), None
    counted = weights > 0
    return counted, weights[counted]


def combine(teacher_loss: Tensor, student_losses: list[Tensor], alpha: float) -> Tensor:
    """(1 - alpha) L_teacher + alpha L_student, L_student the mean over students; L_teacher alone without students."""
    if not student_losses:
        return teacher_loss
    return (1 - alpha) * teacher_loss + alpha * torch.stack(student_losses).mean()
