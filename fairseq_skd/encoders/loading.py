"""``model.w2v_path`` -> configuration and weights of a pretrained encoder, told from the content of the file."""

import argparse
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_skd.compat import to_container
from fairseq_skd.encoders.convolutions import parse_conv_layers
from fairseq_skd.errors import UserError

# What shapes an encoder: all that is read of a pretraining configuration, and all that a fine-tuned checkpoint repeats.
ARCHITECTURE = (
    "extractor_mode",
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "activation_fn",
    "layer_type",
    "layer_norm_first",
    "conv_feature_layers",
    "conv_bias",
    "conv_pos",
    "conv_pos_groups",
    "conv_pos_batch_norm",
    "pos_conv_depth",
    "required_seq_len_multiple",
    "crop_seq_to_multiple",
    "depthwise_conv_kernel_size",
    "attn_type",
    "pos_enc_type",
)
_SIZES = (
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "conv_pos",
    "conv_pos_groups",
    "sample_rate",
)
KINDS = ("hubert", "wav2vec2")
FINE_TUNED = ("hubert_ctc", "hubert_seq2seq", "wav2vec_ctc", "wav2vec_seq2seq", "skd_ctc")
TAKEN = "model.w2v_path takes a fairseq HuBERT or wav2vec 2.0 pretraining checkpoint"


@dataclass
class PretrainedEncoder:
    """What fine-tuning needs of a pretrained encoder.

    Attributes:
        kind: ``hubert`` or ``wav2vec2``, the fairseq model class to build.
        architecture: those of :data:`ARCHITECTURE` that the checkpoint sets.
        normalize: whether the audio was scaled to zero mean and unit variance an utterance.
        sample_rate: in Hz.
        weights: parameters under fairseq's names; empty where only the configuration was kept.
        source: where it came from, for messages.
    """

    kind: str
    architecture: dict[str, Any]
    normalize: bool
    sample_rate: int = 16000
    weights: dict[str, Tensor] = field(default_factory=dict)
    source: str = ""

    @property
    def depth(self) -> int:
        """L, the number of transformer layers."""
        return int(self.architecture["encoder_layers"])

    def to_w2v_args(self) -> dict[str, Any]:
        """The configuration under the names that fairseq's own fine-tuning keeps in ``cfg.model.w2v_args``."""
        return {
            "model": {"_name": self.kind, **self.architecture},
            "task": {"normalize": self.normalize, "sample_rate": self.sample_rate},
        }

    @classmethod
    def from_w2v_args(cls, w2v_args: Mapping[str, Any], source: str = "cfg.model.w2v_args") -> "PretrainedEncoder":
        """Read back what :meth:`to_w2v_args` wrote (or a whole pretraining configuration).

        Raises:
            UserError: not the configuration of an encoder that can be built.
        """
        model, task = _section(w2v_args, "model"), _section(w2v_args, "task")
        kind = model.get("_name") or model.get("arch") or ""
        if kind not in KINDS:
            raise UserError(f"{source} {_describe(kind)}; {TAKEN}")
        architecture = {key: model[key] for key in ARCHITECTURE if model.get(key) is not None}
        for key in ("encoder_layers", "encoder_embed_dim", "conv_feature_layers"):
            if key not in architecture:
                raise UserError(f"{source} does not say its {key}, so the encoder cannot be built; {TAKEN}")
        sample_rate = task.get("sample_rate") or 16000
        for key, value in {**architecture, "sample_rate": sample_rate}.items():
            if key in _SIZES and (type(value) is not int or value < 1):
                raise UserError(f"{source}: {key}={value!r} is not a positive integer, so the encoder cannot be built")
        try:
            parse_conv_layers(architecture["conv_feature_layers"])  # fairseq evaluates this string: check it first
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        _refuse_variants(model, source)
        normalize = task.get("normalize", model.get("normalize", False))
        return cls(kind, architecture, bool(normalize), sample_rate, source=source)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Open a fairseq checkpoint as untrusted input: weights-only, on the CPU, its configuration as plain Python.

    Args:
        path: the file.

    Returns:
        the checkpoint with ``cfg`` a plain dict whose ``model`` and ``task`` are dicts (new style), or with ``cfg``
        None and ``args`` a namespace (old style); and with ``model``, the weights.

    Raises:
        UserError: missing, truncated, not a checkpoint, or holding objects that are not on the allow-list.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"checkpoint {file} {'is a folder' if file.is_dir() else 'does not exist'}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"checkpoint {file} is refused: {_reason(error)}") from error
    except Exception as error:  # what torch raises over a damaged file is of a dozen kinds
        raise UserError(f"checkpoint {file} cannot be read, it is truncated or not a PyTorch file") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(f"checkpoint {file} holds no 'model' dict: it is not a fairseq checkpoint")
    try:
        cfg = to_container(state.get("cfg"))
    except Exception as error:  # an interpolation that leads nowhere, or nodes that another omegaconf wrote
        raise UserError(f"checkpoint {file}: its 'cfg' cannot be read ({str(error).partition(chr(10))[0]})") from error
    state["cfg"] = None
    if isinstance(cfg, dict) and cfg:
        state["cfg"] = {**cfg, "model": _section(cfg, "model"), "task": _section(cfg, "task")}
    elif not isinstance(state.get("args"), argparse.Namespace):
        raise UserError(f"checkpoint {file} has neither 'cfg' nor 'args': it is not a fairseq checkpoint")
    return state


def load_pretrained(path: str | os.PathLike[str]) -> PretrainedEncoder:
    """Read ``model.w2v_path``.

    Raises:
        UserError: see :func:`load_checkpoint`; or the checkpoint is of another kind, which the sentence names.
    """
    state = load_checkpoint(path)
    cfg = state["cfg"] or _from_namespace(state["args"])
    name = str(cfg["model"].get("_name") or cfg["model"].get("arch") or "")
    if name in FINE_TUNED or any(str(key).startswith("w2v_encoder.") for key in state["model"]):
        raise UserError(
            f"model.w2v_path={path} is a fine-tuned checkpoint ({name or 'with a CTC head'}): start from it with "
            f"checkpoint.finetune_from_model={path}, and give model.w2v_path the pretrained one"
        )
    encoder = PretrainedEncoder.from_w2v_args(cfg, source=f"model.w2v_path={path}")
    encoder.weights = state["model"]
    return encoder


def load_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy pretrained weights into an encoder, all of it.

    Raises:
        UserError: a parameter is missing or has another shape.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if not isinstance(weights.get(name), Tensor)]
    if missing:
        raise UserError(f"{source} lacks {len(missing)} of the encoder's {len(wanted)} tensors, first {missing[0]}")
    for name, tensor in wanted.items():
        if weights[name].shape != tensor.shape:
            found, expected = tuple(weights[name].shape), tuple(tensor.shape)
            raise UserError(f"{source}: {name} has shape {found}, its configuration asks for {expected}")
    module.load_state_dict({name: weights[name] for name in wanted})


def _from_namespace(args: argparse.Namespace) -> dict[str, Any]:
    """An old-style flat namespace in the shape of the new configuration."""
    values = dict(vars(args))
    return {"model": {**values, "_name": values.get("arch")}, "task": values}


def _section(config: Any, name: str) -> dict[str, Any]:
    """A part of a configuration; fairseq keeps that of a model without a dataclass as a namespace."""
    section = config.get(name) if isinstance(config, Mapping) else None
    if isinstance(section, argparse.Namespace):
        return dict(vars(section))
    return dict(section) if isinstance(section, Mapping) else {}


def _describe(kind: str) -> str:
    if not kind:
        return "does not say what model it is"
    return f"is a {kind} model"


def _refuse_variants(model: Mapping[str, Any], source: str) -> None:
    if model.get("quantize_input"):
        raise UserError(f"{source} quantises its input (quantize_input), which fine-tuning here does not support")
    if model.get("layer_type") == "conformer" and (model.get("pos_enc_type") or "abs") != "abs":
        raise UserError(
            f"{source} is a conformer with pos_enc_type={model['pos_enc_type']}, only abs can be tapped layer by layer"
        )


def _reason(error: Exception) -> str:
    """What torch's page-long message names as found."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
        return f"it holds {found[1]}, which is not on the allow-list of checkpoint contents and could run code"
    return "it is not a PyTorch file, or its pickle holds something other than weights and configuration"
