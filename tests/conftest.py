"""Set up all tests: one thread, a quiet fairseq, and a registered user dir."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)

import fairseq_skd.models  # noqa: E402, F401

for name in ("fairseq.models.hubert.hubert", "fairseq.tasks.hubert_pretraining"):
    logging.getLogger(name).setLevel(logging.WARNING)
