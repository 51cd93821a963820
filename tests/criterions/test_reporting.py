"""The warning about a model that outputs blanks only."""

import logging

import pytest
import torch

from fairseq_skd.criterions.reporting import BlankPlateau


def test_blank_plateau_warns_once(caplog):
    plateau = BlankPlateau(max_update=40)
    frames = torch.tensor(50)
    with caplog.at_level(logging.WARNING):
        for updates in range(40):
            plateau.watch(updates, frames, torch.tensor(0 if updates < 8 else 50))
    assert caplog.text.count("the model still outputs blanks only") == 1
    assert "after 10 updates" in caplog.text


@pytest.mark.parametrize(("max_update", "spoken_at"), [(40, 9), (0, None)])
def test_no_warning_once_something_is_said(caplog, max_update, spoken_at):
    plateau = BlankPlateau(max_update)
    with caplog.at_level(logging.WARNING):
        for updates in range(20):
            plateau.watch(updates, torch.tensor(50), torch.tensor(49 if updates == spoken_at else 50))
    assert "blanks only" not in caplog.text


@pytest.mark.parametrize("resumed_at", [9, 30])
def test_no_verdict_on_what_a_resumed_run_has_not_seen(caplog, resumed_at):
    plateau = BlankPlateau(max_update=40)
    with caplog.at_level(logging.WARNING):
        for updates in range(resumed_at, 40):
            plateau.watch(updates, torch.tensor(50), torch.tensor(50))
    assert "blanks only" not in caplog.text
