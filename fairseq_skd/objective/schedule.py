"""The weights of the student's loss and of the distillation in it, as functions of the updates done."""

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


@dataclass(frozen=True)
class DistillationWeight:
    """The weight of the distillation term after ``u`` updates: it grows from 0 to ``kd_weight``, then stays.

    kd_weight min(1, u / (warmup U)), with U the length of the run in updates. Not in the paper: at the start a teacher
    that has learnt nothing holds its student back.

    Attributes:
        kd_weight: at the end of the warm-up, and at once without one.
        warmup: share of the run, 0 (none) to 1.
        max_update: U; 1 or more unless there is no warm-up.

    Raises:
        UserError: a value is out of range; the sentence names the key.
    """

    kd_weight: float = 1.0
    warmup: float = 0.0
    max_update: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.kd_weight < math.inf:
            raise UserError(f"criterion.kd_weight={self.kd_weight} is not a number of at least 0")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"criterion.kd_warmup={self.warmup} is a share of the updates, between 0 and 1")
        if self.warmup > 0 and self.max_update < 1:
            raise UserError(
                f"criterion.kd_warmup={self.warmup} needs the length of the run: set optimization.max_update "
                f"(it is {self.max_update})"
            )

    def __call__(self, updates: int) -> float:
        """The weight after ``updates`` updates."""
        if self.warmup == 0:
            return self.kd_weight
        return self.kd_weight * min(1.0, updates / (self.warmup * self.max_update))
