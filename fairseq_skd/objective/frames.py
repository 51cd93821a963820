"""Which frames a distillation term looks at, and how much each weighs (docs/method.md, section 3; Hilmes et al. 2025).

The choice is made by the teacher's posteriors alone. CTC posteriors are mostly blank, so a plain sum over the kept
frames would be many times smaller than one over all frames, and a change of weight would pass for an effect of masking:
the kept frames of an utterance therefore weigh as much together as all its frames did.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_skd.errors import UserError
from fairseq_skd.objective.losses import frame_mask

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
