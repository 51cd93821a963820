"""Logging: the metric names, and the warning about a model that outputs only blanks."""

import logging

import pytest
import torch
from fairseq.criterions.ctc import CtcCriterion as StockCriterion
from fairseq.criterions.ctc import CtcCriterionConfig as StockConfig
from fairseq.logging import metrics
from omegaconf import OmegaConf

from fairseq_skd.criterions import KdCtcCriterion
from fairseq_skd.criterions.config import KdCtcCriterionConfig
from fairseq_skd.criterions.ctc import BlankPlateau, metric_names
from tests.builders import CtcTask, batch, write_pretrained
from tests.criterions.criterion import criterion
from tests.criterions.test_search import beam_criterion
from tests.decoding.checkpoints import write_fine_tuned
from tests.models.models import build


def kd_criterion(folder):
    values = {"teacher_path": str(write_fine_tuned(folder / "teacher.pt")), "max_update": 10, "sentence_avg": True}
    return KdCtcCriterion(OmegaConf.merge(OmegaConf.structured(KdCtcCriterionConfig()), values), CtcTask())


def stock_criterion(_):
    config = OmegaConf.merge(OmegaConf.structured(StockConfig()), {"sentence_avg": False})
    return StockCriterion(config, CtcTask())


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "make", "students", "beam_search"),
    [
        ("skd_ctc", lambda _: criterion(), [], False),
        ("skd_ctc", lambda _: criterion(), [2], False),
        ("skd_ctc", lambda _: criterion(), [3, 1], False),
        ("skd_ctc", beam_criterion, [], True),
        ("skd_ctc", beam_criterion, [2], True),
        ("skd_ctc", beam_criterion, [3, 1], True),
        ("kd_ctc", kd_criterion, [], False),
        ("ctc", stock_criterion, [2], False),
    ],
)
@pytest.mark.slow
def test_the_declared_names_are_what_validation_logs(tmp_path, name, make, students, beam_search):
    """F24: best_checkpoint_metric is checked against these names; a leading _ marks no metric."""
    model = build(write_pretrained(tmp_path / "w2v.pt"), student_layers=students).eval()
    made = make(tmp_path).eval()
    with metrics.aggregate(new_root=True) as logged:
        for sample in (batch([1.2, 0.8], ["GO ON", "AAA"]), batch([0.9], ["NO"])):
            type(made).reduce_metrics([made(model, sample)[2]])
    names = [key for key in logged.get_smoothed_values() if not key.startswith("_")]
    assert sorted(metric_names(name, students, beam_search, depth=4)) == sorted(names)
    unknown = {"wer_4", "raw_wer_4"}
    assert set(metric_names(name, students, beam_search)) == set(names) - unknown
    assert metric_names("label_smoothed_cross_entropy", students, beam_search) == ()


def test_blank_plateau_warns_once(caplog):
    plateau = BlankPlateau(max_update=40)
    frames = torch.tensor(50)
    with caplog.at_level(logging.WARNING):
        for updates in range(40):
            plateau.watch(updates, frames, torch.tensor(0 if updates < 8 else 50))
    assert caplog.text.count("the model still outputs only blanks") == 1
    assert "after 10 updates" in caplog.text


@pytest.mark.parametrize(("max_update", "spoken_at"), [(40, 9), (0, None)])
def test_no_warning_after_one_symbol_or_without_a_run_length(caplog, max_update, spoken_at):
    plateau = BlankPlateau(max_update)
    with caplog.at_level(logging.WARNING):
        for updates in range(20):
            plateau.watch(updates, torch.tensor(50), torch.tensor(49 if updates == spoken_at else 50))
    assert "only blanks" not in caplog.text


@pytest.mark.parametrize("resumed_at", [9, 30])
def test_no_warning_if_a_resumed_run_missed_the_first_updates(caplog, resumed_at):
    plateau = BlankPlateau(max_update=40)
    with caplog.at_level(logging.WARNING):
        for updates in range(resumed_at, 40):
            plateau.watch(updates, torch.tensor(50), torch.tensor(50))
    assert "only blanks" not in caplog.text
