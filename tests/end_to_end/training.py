"""Run fairseq-hydra-train as a user does: in another process, from another folder."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.builders import write_corpus

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = {
    # four utterances of one length, whose order fairseq draws
    "train": [("GO ON", 0.9), ("A", 0.7), ("IT IS", 1.0), ("NO", 0.7), ("YES", 0.7), ("ON", 0.7), ("SO IT GOES", 1.3)],
    "valid": [("GO", 0.6), ("IT GOES", 1.1), ("SO", 0.7)],
}
# Two or three utterances per batch, and all randomness switched on.
SMALL = (
    "dataset.max_tokens=32000",
    "optimization.max_update=20",
    "model.student_layers=[2]",
    "model.mask_prob=0.4",
    "model.mask_channel_prob=0.3",
    "model.mask_channel_length=4",
    "model.layerdrop=0.3",
    "common.cpu=true",
    "common.log_interval=5",
)


def corpus(folder: Path) -> Path:
    """Write a manifest folder with ten utterances."""
    return write_corpus(folder, CORPUS)


def train(
    folder: Path, overrides: Sequence[str], config: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Train in ``folder``, which gets the checkpoints; ``config`` defaults to hubert_mini."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config or REPOSITORY / "config" / "finetune" / "hubert_mini.yaml"
    command = [
        *(sys.executable, "-m", "fairseq_cli.hydra_train", "--config-dir", str(config.parent)),
        *("--config-name", config.stem, f"common.user_dir={REPOSITORY / 'fairseq_skd'}"),
        *(f"checkpoint.save_dir={folder}", f"hydra.run.dir={folder}", *overrides),
    ]
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command,
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def parameters(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the model's tensors from a checkpoint."""
    return torch.load(checkpoint, weights_only=True)["model"]


def logged(output: str, kind: str) -> list[dict[str, Any]]:
    """Parse fairseq's JSON log lines of a kind (train_inner, train, valid) into floats."""
    lines = re.findall(rf"\[{kind}\]\[INFO\] - (\{{.*\}})", output)
    return [{key: float(value) for key, value in json.loads(line).items()} for line in lines]


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """Assert that all tensors are equal bit by bit."""
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, first {different[0]}"
