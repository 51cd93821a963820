"""The weight alpha of the student's loss, as a function of the updates done."""

import math
from dataclasses import dataclass

from fairseq_skd.errors import UserError

SCHEDULES = ("clamped_linear", "linear", "cosine", "constant")


@dataclass(frozen=True)
class AlphaSchedule:
    """alpha(u): how much of the loss is the student's after ``u`` updates (paper: scheduled self-distillation).

    With r = u / (U - 1), clipped to [0, 1], and U the length of the run in updates:

    ================== ====================================================
    ``clamped_linear`` min(max(r, tau), 1 - tau), the paper's
    ``linear``         r
    ``cosine``         tau + (1 - 2 tau) (1 - cos(pi r)) / 2
    ``constant``       alpha
    ================== ====================================================

    The paper counts epochs; updates make the weight independent of the corpus' size and exact after a resume.

    Attributes:
        name: one of :data:`SCHEDULES`.
        max_update: U; 1 or more unless the schedule is constant.
        tau: clamp, 0 <= tau < 0.5.
        alpha: the weight of the constant schedule, 0 <= alpha <= 1.

    Raises:
        UserError: a value is out of range; the sentence names the key.
    """

    name: str = "clamped_linear"
    max_update: int = 0
    tau: float = 0.3
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise UserError(f"criterion.schedule={self.name} is unknown: choose one of {', '.join(SCHEDULES)}")
        if not 0 <= self.tau < 0.5:
            raise UserError(f"criterion.tau={self.tau} must be at least 0 and below 0.5")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"criterion.alpha={self.alpha} must lie between 0 and 1")
        if self.name != "constant" and self.max_update < 1:
            raise UserError(
                f"criterion.schedule={self.name} needs the length of the run: set optimization.max_update "
                f"(it is {self.max_update}), or use criterion.schedule=constant"
            )

    def __call__(self, updates: int) -> float:
        """Alpha after ``updates`` updates."""
        if self.name == "constant":
            return self.alpha
        progress = 1.0 if self.max_update == 1 else min(max(updates / (self.max_update - 1), 0.0), 1.0)
        if self.name == "linear":
            return progress
        if self.name == "cosine":
            return self.tau + (1 - 2 * self.tau) * (1 - math.cos(math.pi * progress)) / 2
        return min(max(progress, self.tau), 1 - self.tau)
