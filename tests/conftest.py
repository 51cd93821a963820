"""What every test gets: one thread, quiet fairseq, and the user dir registered."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

import fairseq_skd.models  # noqa: E402, F401
from fairseq_skd.files import progress  # noqa: E402

for name in ("fairseq.models.hubert.hubert", "fairseq.tasks.hubert_pretraining"):
    logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is shown as if all work took its time."""
    monkeypatch.setattr(progress, "PATIENCE", 0)
