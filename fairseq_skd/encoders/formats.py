"""Checkpoints in other programs' formats: some become fairseq's, the others are named.

Microsoft's WavLM has a flat ``cfg``. s3prl's converted files have ``model_cfg``, ``task_cfg`` and
``model_weight``. Both use fairseq's names of tensors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_skd.encoders.pretrained import TAKEN
from fairseq_skd.errors import UserError

# Microsoft's defaults, from WavLMConfig in their WavLM.py. Ours and transformers' differ.
_MICROSOFT: dict[str, Any] = {
    "extractor_mode": "default",
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "normalize": False,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
}
_BIAS = ("relative_position_embedding", "num_buckets", "max_distance", "gru_rel_pos")
# Keys that only these files have.
_DISTILLER, _PROBE, _LIGHTNING = "Distiller", "Downstream", "pytorch-lightning_version"
# How the names of tensors begin when a file holds nothing but tensors; the first match counts.
_BARE = (
    (r"(\w+\.)?encoder\.transformer\.", "the weights of a torchaudio model"),
    (r"model\.(\w+\.)*feature_projection\.", "the weights of a SpeechBrain model"),
    (r"(\w+\.)?feature_projection\.", "the weights of a Hugging Face model without its config.json"),
    (r"(\w+\.)*(post_extract_proj|feature_extractor)\.", "the weights of an encoder"),
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def from_s3prl(state: Any) -> Any:
    """Convert a file of s3prl's ``convert.py`` to the parts of a fairseq checkpoint.

    Other contents are returned as they are.
    """
    if isinstance(state, dict) and "model" not in state and {"model_cfg", "task_cfg", "model_weight"} <= state.keys():
        cfg = {"model": state["model_cfg"], "task": state["task_cfg"]}
        return {"cfg": cfg, "model": state["model_weight"]}
    return state


def from_microsoft(cfg: Mapping[str, Any] | None, source: str) -> dict[str, Any] | None:
    """Convert Microsoft's flat ``cfg`` to fairseq's structure; None if ``cfg`` is not flat.

    A WavLM without a relative position bias is the plain transformer of wav2vec 2.0.

    Raises:
        UserError: the flat configuration is not a WavLM's.
    """
    if not cfg or cfg["model"] or not ("encoder_layers" in cfg or "relative_position_embedding" in cfg):
        return None
    if "input_patch_size" in cfg:
        raise UserError(f"{source} is a BEATs model; {TAKEN}")
    model: dict[str, Any] = {**_MICROSOFT, **cfg, "_name": "wavlm"}
    if type(model["relative_position_embedding"]) is not bool:
        raise UserError(f"{source}: relative_position_embedding is neither true nor false")
    if not model["relative_position_embedding"]:
        model = {key: value for key, value in model.items() if key not in _BIAS} | {"_name": "wav2vec2"}
    return {"model": model, "task": {"normalize": model["normalize"], "sample_rate": 16000}}


def from_contentvec(cfg: dict[str, Any]) -> dict[str, Any]:
    """Rename ContentVec's model to HuBERT, which its first ``encoder_layers`` layers are.

    Its authors' legacy files have that name already. The layers above, which know the speaker, have
    other numbers and are not used.
    """
    if cfg["model"].get("_name") != "contentvec":
        return cfg
    return {**cfg, "model": {**cfg["model"], "_name": "hubert"}}


def other_format(state: Any) -> str:
    """Say what a file without a ``model`` is, and what to give instead; empty if it is unknown."""
    if not isinstance(state, Mapping):
        return ""
    if _DISTILLER in state:
        return f"it is s3prl's DistilHuBERT, which has no layer norm before its projection; {TAKEN}"
    if _PROBE in state:
        return "it is a downstream model of s3prl: give the pretrained encoder that it was trained on"
    if _LIGHTNING in state:
        return f"it is a checkpoint of PyTorch Lightning; {TAKEN}"
    for pattern, what in _BARE:
        if any(isinstance(name, str) and re.match(pattern, name) for name in state):
            return f"it holds {what} and no configuration: give the fairseq checkpoint or the Hugging Face folder"
    return ""


def other_folder(folder: Path) -> str:
    """Say what a folder without ``config.json`` is; empty if it is unknown."""
    if (folder / "hyperparams.yaml").is_file():
        return "it is a SpeechBrain folder: give the folder of the Hugging Face model that its hyperparams.yaml names; "
    return ""


def hub_name(file: Path) -> str:
    """Return the name ``owner/model`` if a missing path looks like a model on a hub, else empty.

    A relative path may have become absolute, so only its last two parts count, and both must be
    missing.
    """
    parts = file.parent.name, file.name
    missing = not file.parent.exists() and file.parent.parent.is_dir()
    if missing and file.suffix not in _WEIGHTS and all(map(_HUB_NAME.fullmatch, parts)):
        return "/".join(parts)
    return ""
