"""Checkpoints to export, and their parts as folders."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary

from fairseq_skd import export, recognizer
from fairseq_skd.recognizer import Recognizer
from tests.decoding.checkpoints import FULL, STUDENT, write_fine_tuned

KINDS = ("hubert", "wav2vec2", "wavlm")
PRE_LN = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True, "normalize": True}
STYLES: dict[str, dict[str, Any]] = {"post-LN": {}, "pre-LN": PRE_LN}
EXITS = (STUDENT, FULL)
PIECES = ("▁THE", "▁A", "S", "▁", "TEN", "▁IT", "IS", "'T")


def write(path: Path, kind: str = "hubert", style: str = "post-LN", **changes: Any) -> Path:
    """Write a checkpoint; the norms of student and teacher differ, so that mixing them up shows."""
    write_fine_tuned(path, kind, **{**STYLES[style], **changes})
    state = torch.load(path, weights_only=False)
    for name, tensor in state["model"].items():
        if name.startswith(f"student_heads.{STUDENT}.layer_norm"):
            tensor += 0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    torch.save(state, path)
    return path


def run(checkpoint: Path, layer: int, form: str, out: Path, *more: str) -> Path:
    export.main([str(checkpoint), "--layer", str(layer), "--format", form, "--out", str(out), *more])
    return out


def load(path: Path, layer: int | None = None) -> Recognizer:
    return recognizer.load(path, None if layer is None else (layer,), "cpu")


def noise(*seconds: float) -> list[np.ndarray]:
    """Audio that gets louder and louder, (samples,) each."""
    rng = np.random.default_rng(0)
    lengths = [int(16000 * duration) for duration in seconds]
    return [0.2 * rng.standard_normal(n).astype(np.float32) * np.linspace(0.1, 1, n, dtype=np.float32) for n in lengths]


def logits(rec: Recognizer, audio: list[np.ndarray]) -> list[torch.Tensor]:
    """Logits of each utterance alone, (T, V)."""
    return [next(iter(rec(*rec.batch([one])).logits.values()))[:, 0] for one in audio]


def with_pieces(path: Path) -> Path:
    """Give a checkpoint a dictionary of word pieces."""
    state = torch.load(path, weights_only=False)
    dictionary = Dictionary()
    for symbol in (*PIECES, *(f"{letter}x" for letter in "ABCDEFGHIJKLMNOPQRST")):
        dictionary.add_symbol(symbol)
    assert len(dictionary) == 32
    state["task_state"] = {"target_dictionary": dictionary}
    state["cfg"]["criterion"] = {"post_process": "sentencepiece"}
    torch.save(state, path)
    return path
