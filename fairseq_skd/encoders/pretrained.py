"""A pretrained encoder for fine-tuning: its kind, architecture and weights, checked."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import fairseq.utils
from torch import Tensor

from fairseq_skd.encoders.convolutions import ConvLayer, FrameGrid, parse_conv_layers, receptive_field
from fairseq_skd.errors import UserError, shown

# Keys that define an encoder. A fine-tuned checkpoint saves them.
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
    "num_buckets",
    "max_distance",
    "gru_rel_pos",
)
# Keys that are read from a pretraining configuration.
USED = (*ARCHITECTURE, "_name", "arch", "normalize", "sample_rate", "quantize_input")
# Largest values that a file may declare. The largest published encoder has 48 layers x 1,920.
_LIMITS = {
    "encoder_layers": 200,
    "encoder_embed_dim": 16_384,
    "encoder_ffn_embed_dim": 65_536,
    "encoder_attention_heads": 1_024,
    "conv_pos": 4_096,
    "conv_pos_groups": 1_024,
    "pos_conv_depth": 100,
    "required_seq_len_multiple": 1_000,
    "crop_seq_to_multiple": 1_000,
    "depthwise_conv_kernel_size": 1_001,
    "num_buckets": 10_000,
    "max_distance": 100_000,
    "sample_rate": 1_000_000,
}
# fairseq's defaults of the keys that determine the size of an encoder.
_DEFAULTS = {
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "pos_conv_depth": 1,
}
_FLAGS = ("layer_norm_first", "conv_bias", "conv_pos_batch_norm", "gru_rel_pos", "normalize")
_CHOICES = {
    "extractor_mode": ("default", "layer_norm"),
    "activation_fn": tuple(fairseq.utils.get_available_activation_fns()),
    "layer_type": ("transformer", "conformer"),
    "attn_type": ("", "espnet"),
    "pos_enc_type": ("abs", "rope", "rel_pos"),
}
KINDS = ("hubert", "wav2vec2", "wavlm")
TAKEN = (
    "model.w2v_path takes a pretrained HuBERT, wav2vec 2.0 or WavLM: a fairseq checkpoint, Microsoft's WavLM-*.pt or a "
    "Hugging Face folder"
)


@dataclass
class PretrainedEncoder:
    """Configuration and weights of a pretrained encoder.

    Attributes:
        kind: one of :data:`KINDS`, the model class to build.
        architecture: the keys of :data:`ARCHITECTURE` that the checkpoint sets.
        normalize: whether audio is scaled to zero mean and unit variance per utterance.
        sample_rate: in Hz.
        weights: parameters under fairseq's names; empty if there is only a configuration.
        source: its origin, for messages.
        normalize_said_by: the file or key that says ``normalize``, for messages.
    """

    kind: str
    architecture: dict[str, Any]
    normalize: bool
    sample_rate: int = 16000
    weights: dict[str, Tensor] = field(default_factory=dict)
    source: str = ""
    normalize_said_by: str = ""

    @property
    def depth(self) -> int:
        """L, the number of transformer layers."""
        return int(self.architecture["encoder_layers"])

    @property
    def conv_layers(self) -> list[ConvLayer]:
        """The feature extractor's convolutions."""
        return parse_conv_layers(self.architecture["conv_feature_layers"])

    @property
    def shortest_audio(self) -> int:
        """Number of samples that the feature extractor needs for one frame."""
        return receptive_field(self.conv_layers)

    @property
    def frame_grid(self) -> FrameGrid:
        """The samples that each frame covers."""
        return FrameGrid.of(self.architecture)

    def check_size(self, weights: Mapping[str, Any]) -> None:
        """Check, before the encoder is built, that it is not larger than its weights.

        Args:
            weights: all tensors of the file, by name.

        Raises:
            UserError: the encoder has more parameters than the file has numbers.
        """
        storages = {}
        for tensor in weights.values():
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        held, needed = sum(storages.values()), self._least_parameters()
        if needed > held:
            raise UserError(
                f"{self.source} is damaged: its configuration describes an encoder with at least {needed:,} "
                f"parameters, but the file holds {held:,} numbers"
            )

    def _least_parameters(self) -> int:
        """Count the parameters of the convolutions and of the large matrices."""
        of = {**_DEFAULTS, **self.architecture}
        width, depth = of["encoder_embed_dim"], of["pos_conv_depth"]
        channels = [1] + [layer.channels for layer in self.conv_layers]
        convolutions = sum(
            below * layer.channels * layer.kernel for below, layer in zip(channels, self.conv_layers, strict=False)
        )
        kernels = of["conv_pos"] if depth == 1 else depth * max(3, of["conv_pos"] // depth)
        positions = width * (width // of["conv_pos_groups"]) * kernels
        layer = 4 * width * width + 2 * width * of["encoder_ffn_embed_dim"]
        return convolutions + positions + of["encoder_layers"] * layer

    def first_layers(self, layers: int) -> "PretrainedEncoder":
        """Return the encoder with its first ``layers`` only (layer pruning, docs/method.md).

        Raises:
            UserError: the encoder has fewer layers, or ``layers`` is below 1.
        """
        if not 1 <= layers <= self.depth:
            raise UserError(
                f"model.keep_layers={layers} is out of range: this encoder has {self.depth} layers, keep 1 to "
                f"{self.depth} of them (0: all)"
            )
        return replace(self, architecture={**self.architecture, "encoder_layers": layers})

    def to_w2v_args(self) -> dict[str, Any]:
        """Return the configuration in the form of fairseq's ``cfg.model.w2v_args``."""
        return {
            "model": {"_name": self.kind, **self.architecture},
            "task": {"normalize": self.normalize, "sample_rate": self.sample_rate},
        }

    @classmethod
    def from_w2v_args(cls, w2v_args: Mapping[str, Any], source: str = "cfg.model.w2v_args") -> "PretrainedEncoder":
        """Read the result of :meth:`to_w2v_args`, or a whole pretraining configuration.

        Raises:
            UserError: no encoder can be built from the configuration; the message names the key.
        """
        model, task = section(w2v_args, "model"), section(w2v_args, "task")
        kind = model.get("_name") or model.get("arch") or ""
        if kind not in KINDS:
            raise UserError(f"{source} {_describe(kind)}; {TAKEN}")
        architecture = {key: model[key] for key in ARCHITECTURE if model.get(key) is not None}
        for key in ("encoder_layers", "encoder_embed_dim", "conv_feature_layers"):
            if key not in architecture:
                raise UserError(f"{source} does not say its {key}, so the encoder cannot be built; {TAKEN}")
        sample_rate = 16000 if task.get("sample_rate") is None else task["sample_rate"]
        normalize = task.get("normalize", model.get("normalize"))
        normalize = False if normalize is None else normalize
        _refuse_variants(model, source)
        _check_values({**architecture, "sample_rate": sample_rate, "normalize": normalize}, source)
        try:
            parse_conv_layers(architecture["conv_feature_layers"])  # fairseq evaluates this string: check it first
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        _refuse_misfits(architecture, source)
        said_by = f"the encoder was pretrained with normalize={normalize}"
        return cls(kind, architecture, normalize, sample_rate, source=source, normalize_said_by=said_by)


def section(config: Any, name: str) -> dict[str, Any]:
    """Return a section of a configuration as a dict, empty if it is missing.

    fairseq saves the section of a model without a dataclass as a namespace.
    """
    part = config.get(name) if isinstance(config, Mapping) else None
    if isinstance(part, argparse.Namespace):
        return dict(vars(part))
    return dict(part) if isinstance(part, Mapping) else {}


def _describe(kind: str) -> str:
    if not kind or not isinstance(kind, str):
        return "does not say what model it is"
    return f"is a {shown(kind)} model"


def _refuse_variants(model: Mapping[str, Any], source: str) -> None:
    if model.get("quantize_input"):
        raise UserError(f"{source} quantises its input (quantize_input), which fine-tuning here does not support")
    if model.get("layer_type") == "trf_adp":
        raise UserError(f"{source} has adapters (layer_type=trf_adp), which fine-tuning here does not support")
    if model.get("layer_type") == "conformer" and (model.get("pos_enc_type") or "abs") != "abs":
        raise UserError(
            f"{source} is a conformer with pos_enc_type={shown(model['pos_enc_type'])}, but only pos_enc_type=abs is "
            f"supported"
        )


def _check_values(values: Mapping[str, Any], source: str) -> None:
    """Check types, choices and limits of the values that an encoder is built from."""
    for key, value in values.items():
        shown = repr(value)[:200]
        if key in _LIMITS and (type(value) is not int or value < 1):
            raise UserError(f"{source}: {key}={shown} is not a positive integer, so the encoder cannot be built")
        if key in _LIMITS and value > _LIMITS[key]:
            raise UserError(f"{source}: {key}={shown} is above {_LIMITS[key]:,}, more than any encoder has")
        if key in _FLAGS and type(value) is not bool:
            raise UserError(f"{source}: {key}={shown} is neither true nor false")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise UserError(f"{source}: {key}={shown} is unknown (known: {', '.join(_CHOICES[key])})")


def _refuse_misfits(architecture: Mapping[str, Any], source: str) -> None:
    """Check for values on which fairseq's classes would fail an assertion or divide by zero."""
    architecture = {**_DEFAULTS, **architecture}
    width = architecture["encoder_embed_dim"]
    for key in ("encoder_attention_heads", "conv_pos_groups"):
        if width % architecture[key]:
            raise UserError(f"{source}: encoder_embed_dim={width} is not a multiple of {key}={architecture[key]}")
    if architecture.get("depthwise_conv_kernel_size", 31) % 2 == 0:
        raise UserError(
            f"{source}: depthwise_conv_kernel_size={architecture['depthwise_conv_kernel_size']} is even, it must be odd"
        )
    buckets, distance = architecture.get("num_buckets", 320), architecture.get("max_distance", 800)
    if buckets % 4 or distance <= buckets // 4:
        raise UserError(
            f"{source}: num_buckets={buckets} and max_distance={distance} do not define a relative position bias: "
            f"num_buckets must be a multiple of 4, and max_distance above num_buckets / 4"
        )
