"""Save checkpoints, and get the message with which one is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.errors import UserError
from tests.builders import architecture

TAKEN = (
    "model.w2v_path takes a pretrained HuBERT, wav2vec 2.0 or WavLM: a fairseq checkpoint, Microsoft's WavLM-*.pt or a "
    "Hugging Face folder"
)
MODEL = {"_name": "hubert", **architecture()}
TASK = {"_name": "hubert_pretraining", "normalize": True, "sample_rate": 16000}


def save(path: Path, legacy: bool = False, **state: Any) -> Path:
    """Save a checkpoint; without ``model`` it has no weights."""
    torch.save({"model": {}, **state}, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_pretrained(path)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


class Harmful:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call
