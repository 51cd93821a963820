"""fairseq glue: the criterion ``skd_ctc``."""

from fairseq_skd.criterions.skd_ctc import SkdCtcCriterion

__all__ = ["SkdCtcCriterion"]
