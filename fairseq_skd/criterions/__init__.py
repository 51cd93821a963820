"""The fairseq criteria ``skd_ctc`` (self-distillation) and ``kd_ctc`` (a separate teacher)."""

from fairseq_skd import registration  # noqa: F401  (first: its imports would find this module half loaded)
from fairseq_skd.criterions.kd_ctc import KdCtcCriterion
from fairseq_skd.criterions.skd_ctc import SkdCtcCriterion

__all__ = ["KdCtcCriterion", "SkdCtcCriterion"]
