"""transformers' models with random weights, in folders as ``save_pretrained`` writes them.

They work without torchaudio, because their input is a tensor.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

CLASSES = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [24] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def peer(kind: str, suffix: str = "Model", **changes: Any) -> torch.nn.Module:
    """Make a model of transformers; no parameter stays at or near its initial zero or one."""
    buckets = {"num_buckets": 32, "max_bucket_distance": 40} if kind == "wavlm" else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{CLASSES[kind]}Config")(**{**SHAPE, **buckets, **changes})
    model = getattr(transformers, CLASSES[kind] + suffix)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".attention." in name and parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter.size(-1) ** -0.5)
            elif parameter.dim() == 1 or "original0" in name or "weight_g" in name:
                parameter.add_(0.3 * torch.randn_like(parameter) * (1 if parameter.dim() == 1 else parameter))
    return model.eval()


def write_folder(folder: Path, kind: str, suffix: str = "Model", **changes: Any) -> torch.nn.Module:
    """Save a model of :func:`peer` in a folder, and return it."""
    model = peer(kind, suffix, **changes)
    model.save_pretrained(folder)
    return model


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; None removes a key."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder
