"""Set up all tests: one thread, a quiet fairseq, and a registered user dir."""

import logging
import os
import threading

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
    """Show progress as if all work took long."""

    class Now(threading.Timer):
        def start(self) -> None:
            self.function()

    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "Timer", Now)
