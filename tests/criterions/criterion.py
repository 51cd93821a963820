"""Build the criterion from its keys, and collect what it logs."""

from collections import OrderedDict

from fairseq.logging import metrics
from omegaconf import OmegaConf

from fairseq_skd.criterions import SkdCtcCriterion
from fairseq_skd.criterions.config import SkdCtcCriterionConfig
from tests.builders import CtcTask


def criterion(**changes) -> SkdCtcCriterion:
    values = {"max_update": 101, "sentence_avg": True, **changes}
    return SkdCtcCriterion(OmegaConf.merge(OmegaConf.structured(SkdCtcCriterionConfig()), values), CtcTask())


def logged(logs) -> OrderedDict:
    with metrics.aggregate(new_root=True) as values:
        SkdCtcCriterion.reduce_metrics(logs)
    return values.get_smoothed_values()
