"""The weights of the student's loss and of its distillation term, per update."""

import math
from dataclasses import dataclass

from fairseq_skd.errors import UserError

SCHEDULES = ("clamped_linear", "linear", "cosine", "constant")


@dataclass(frozen=True)
class AlphaSchedule:
    """alpha(u), the weight of the student's loss after ``u`` updates (scheduled self-distillation).

    With r = u / (U - 1), clipped to [0, 1], and U the length of the run in updates:

    ================== ====================================================
    ``clamped_linear`` min(max(r, tau), 1 - tau), as in the paper
    ``linear``         r
    ``cosine``         tau + (1 - 2 tau) (1 - cos(pi r)) / 2
    ``constant``       alpha
    ================== ====================================================

    The paper counts epochs. Counting updates makes alpha independent of the corpus size, and exact
    after a resume.

    >>> alpha = AlphaSchedule("clamped_linear", max_update=11, tau=0.3)
    >>> [alpha(u) for u in (0, 3, 5, 10)]
    [0.3, 0.3, 0.5, 0.7]

    Attributes:
        name: one of :data:`SCHEDULES`.
        max_update: U; at least 1 unless the schedule is constant.
        tau: clamp, 0 <= tau < 0.5.
        alpha: the weight of the constant schedule, 0 <= alpha <= 1.

    Raises:
        UserError: a value is out of range; the message names the key.
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
        """Return alpha after ``updates`` updates."""
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
    """The weight of the distillation term after ``u`` updates.

    kd_weight min(1, u / (warmup U)), with U the length of the run in updates. The warm-up is not in
    the paper: an untrained teacher slows its student down.

    >>> weight = DistillationWeight(kd_weight=2.0, warmup=0.5, max_update=8)
    >>> [weight(u) for u in range(6)]
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]

    Attributes:
        kd_weight: the weight after the warm-up.
        warmup: the warm-up's share of the run, 0 (none) to 1.
        max_update: U; at least 1 if there is a warm-up.

    Raises:
        UserError: a value is out of range; the message names the key.
    """

    kd_weight: float = 1.0
    warmup: float = 0.0
    max_update: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.kd_weight < math.inf:
            raise UserError(f"criterion.kd_weight={self.kd_weight} must be finite and at least 0")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"criterion.kd_warmup={self.warmup} must lie between 0 and 1: it is a share of the updates")
        if self.warmup > 0 and self.max_update < 1:
            raise UserError(
                f"criterion.kd_warmup={self.warmup} needs the length of the run: set optimization.max_update "
                f"(it is {self.max_update})"
            )

    def __call__(self, updates: int) -> float:
        """Return the weight after ``updates`` updates."""
        if self.warmup == 0:
            return self.kd_weight
        return self.kd_weight * min(1.0, updates / (self.warmup * self.max_update))
