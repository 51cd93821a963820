"""The keys of ``model:`` for ``_name: skd_ctc``, fairseq's own and ours, their checks, and the saved configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models.wav2vec.wav2vec2 import MASKING_DISTRIBUTION_CHOICES
from omegaconf import II, MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.encoders.masking import SpanMask
from fairseq_skd.encoders.trunk import Regularisation
from fairseq_skd.errors import UserError, shown
from fairseq_skd.typed_settings import COUNT, DROPOUT, FINITE, NON_NEGATIVE, PROBABILITY, Range, check_ranges


def root_of(section: Any) -> DictConfig | None:
    """The root configuration above a section; None if there is none, as in a test or in somebody's own program."""
    root = section._get_parent() if isinstance(section, DictConfig) else None
    return root if isinstance(root, DictConfig) else None


def select(root: DictConfig | None, key: str) -> Any:
    """The value of ``section.key``; None if there is no such section, key or root."""
    section, _, name = key.partition(".")
    if root is None or section not in root or root[section] is None or name not in root[section]:
        return None
    return root[section][name]


def keep(section: Any, name: str, key: str, value: Any) -> None:
    """Set a key in the section ``name`` of the root above ``section``, and in ``section`` if it is a copy of that."""
    root = root_of(section)
    for node in (section, OmegaConf.select(root, name) if root is not None else None):
        if isinstance(node, DictConfig):
            with open_dict(node):
                node[key] = value


LAYER_TYPES = ChoiceEnum(["transformer", "conformer", "trf_adp"])  # the union of all builds


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


# Optional[...] rather than "| None" throughout: omegaconf 2.0 reads these annotations.
@dataclass
class SkdCtcConfig(FairseqDataclass):
    """Every field of fairseq's fine-tuning configurations keeps its name, default and meaning."""

    # Ours
    student_layers: list[int] = field(
        default_factory=lambda: [6],
        metadata={"help": "layer counts of the self-students, 1-based; [] is plain CTC fine-tuning"},
    )
    keep_layers: int = _key(0, "train only the first so many layers of the pretrained encoder; 0: all (layer pruning)")
    decode_layer: int = _key(0, "exit to decode with: 0 the full model, l the student of l layers (set when decoding)")

    # The pretrained encoder
    w2v_path: str = _key(MISSING, "pretrained HuBERT, wav2vec 2.0 or WavLM: a checkpoint or a Hugging Face folder")
    w2v_args: Any = None  # its configuration, kept in every fine-tuned checkpoint
    no_pretrained_weights: bool = _key(False, "build the encoder of w2v_path with random weights")
    load_ema: bool = _key(False, "data2vec only: refused")
    encoder_embed_dim: Optional[int] = _key(768, "unused, as in fairseq: the width is the checkpoint's")
    autoregressive: bool = _key(False, "sequence-to-sequence only: refused")
    normalize: bool = II("task.normalize")
    data: str = II("task.data")
    seed: int = II("common.seed")

    # Regularisation
    dropout_input: float = _key(0.0, "dropout on the extracted features")
    final_dropout: float = _key(0.0, "dropout before each CTC head")
    dropout: float = _key(0.0, "dropout inside the encoder")
    attention_dropout: float = _key(0.0, "dropout on attention weights")
    activation_dropout: float = _key(0.0, "dropout inside the feed-forward blocks")
    layerdrop: float = _key(0.0, "probability of skipping a layer in training")
    drop_path: float = _key(0.0, "data2vec only: refused unless 0")
    layer_decay: float = _key(1.0, "data2vec only: refused unless 1")

    # Masks over frames
    apply_mask: bool = _key(False, "mask frames and channels in training")
    mask_length: int = _key(10, "frames of a span")
    mask_prob: float = _key(0.5, "share of frames covered if no spans overlapped")
    mask_selection: MASKING_DISTRIBUTION_CHOICES = _key("static", "distribution of the spans' lengths")
    mask_other: float = _key(0.0, "second parameter of that distribution")
    no_mask_overlap: bool = _key(False, "keep spans apart")
    mask_min_space: Optional[int] = _key(1, "frames between spans that are kept apart")
    require_same_masks: bool = _key(True, "mask equally many frames in all utterances of a batch")
    mask_dropout: float = _key(0.0, "share of masked frames to unmask again")
    zero_mask: bool = _key(False, "data2vec only: refused")

    # Masks over channels
    mask_channel_length: int = _key(10, "channels of a span")
    mask_channel_prob: float = _key(0.0, "share of channels covered if no spans overlapped")
    mask_channel_selection: MASKING_DISTRIBUTION_CHOICES = _key("static", "distribution of the spans' lengths")
    mask_channel_other: float = _key(0.0, "second parameter of that distribution")
    no_mask_channel_overlap: bool = _key(False, "keep spans apart")
    mask_channel_min_space: Optional[int] = _key(1, "channels between spans that are kept apart")
    mask_channel_before: bool = _key(False, "mask channels before frames")

    # What is trained when
    freeze_finetune_updates: int = _key(0, "updates during which only the heads train")
    feature_grad_mult: float = _key(0.0, "scales the feature extractor's gradient; 0 freezes it")
    freeze_regex: Optional[str] = _key(None, "freeze encoder parameters whose whole name matches")

    # Output
    blank_weight: float = _key(0.0, "added to (or set as) the blank's logit")
    blank_mode: str = _key("add", "add or set")

    # Memory, and what the layers are made of
    checkpoint_activations: bool = _key(False, "recompute activations in the backward pass")
    offload_activations: bool = _key(False, "with checkpoint_activations: keep them on the CPU")
    min_params_to_wrap: int = _key(int(1e8), "fully sharded training: smallest layer to wrap")
    ddp_backend: str = II("distributed_training.ddp_backend")
    layer_type: LAYER_TYPES = _key(  # type: ignore[valid-type]
        "transformer", "unused: the layers are the checkpoint's; trf_adp (adapters) is refused"
    )
    adp_num: int = _key(-1, "adapters only: no effect")
    adp_dim: int = _key(64, "adapters only: no effect")
    adp_act_fn: str = _key("relu", "adapters only: no effect")
    adp_trf_idx: str = _key("all", "adapters only: no effect")
    update_alibi: bool = _key(True, "data2vec only: no effect")


# data2vec's and sequence-to-sequence keys: accepted in a YAML that is carried over, at the value that does nothing.
_NO_EFFECT = {"load_ema": False, "autoregressive": False, "drop_path": 0, "layer_decay": 1, "zero_mask": False}

RANGES: dict[str, Range] = {
    "keep_layers": NON_NEGATIVE,
    "decode_layer": NON_NEGATIVE,
    **dict.fromkeys(
        ("dropout_input", "final_dropout", "dropout", "attention_dropout", "activation_dropout", "layerdrop"), DROPOUT
    ),
    **dict.fromkeys(("mask_prob", "mask_channel_prob", "mask_dropout"), PROBABILITY),
    **dict.fromkeys(("mask_length", "mask_channel_length"), COUNT),
    **dict.fromkeys(
        ("mask_other", "mask_channel_other", "mask_min_space", "mask_channel_min_space", "freeze_finetune_updates"),
        NON_NEGATIVE,
    ),
    "feature_grad_mult": NON_NEGATIVE,
    "blank_weight": FINITE,
}


def read_saved(saved: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check ``cfg.model`` of a fine-tuned checkpoint: types, choices and ranges of the keys that the model has.

    Args:
        saved: plain, without interpolations.
        source: of the checkpoint, for messages.

    Returns:
        the keys that the model has.

    Raises:
        UserError: naming the key and its value.
    """
    model = OmegaConf.structured(SkdCtcConfig)
    kept = {
        key: value for key, value in saved.items() if key in SkdCtcConfig.__dataclass_fields__ and value is not None
    }
    for key, value in kept.items():
        try:
            model = OmegaConf.merge(model, {key: value})
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            reason = shown(str(error).partition("\n")[0], 200)
            raise UserError(f"{source}: model.{key}={repr(value)[:100]} cannot be used: {reason}") from error
    try:
        check_model(model)
    except UserError as error:
        raise UserError(f"{source}: {shown(error, 300)}") from error
    return {"_name": "skd_ctc", **kept}


def check_model(cfg: SkdCtcConfig) -> None:
    """Check values that would silently do nothing here, unknown choices and numbers out of range.

    Raises:
        UserError: naming the key and what it can be.
    """
    for key, value in _NO_EFFECT.items():
        if cfg[key] != value:
            raise UserError(f"model.{key}={cfg[key]} belongs to another model; skd_ctc can only have {key}={value}")
    if cfg.blank_mode not in ("add", "set"):
        raise UserError(f"model.blank_mode={cfg.blank_mode} is unknown: choose add or set")
    if _name(cfg.layer_type) == "trf_adp":
        raise UserError(
            "model.layer_type=trf_adp: skd_ctc builds no adapters, which no pretrained encoder has weights for"
        )
    if cfg.freeze_regex is not None:
        try:
            re.compile(cfg.freeze_regex)
        except re.error as error:
            raise UserError(f"model.freeze_regex={cfg.freeze_regex} is not a regular expression: {error}") from error
    check_ranges("model", cfg, RANGES)


def encoder_settings(cfg: SkdCtcConfig) -> dict[str, Any]:
    """Settings of fairseq's encoder classes that fine-tuning overrides, under their names there."""
    return {
        "dropout": cfg.dropout,
        "attention_dropout": cfg.attention_dropout,
        "activation_dropout": cfg.activation_dropout,
        "dropout_input": cfg.dropout_input,
        "encoder_layerdrop": cfg.layerdrop,
        "checkpoint_activations": cfg.checkpoint_activations,
        "offload_activations": cfg.offload_activations,
        "min_params_to_wrap": cfg.min_params_to_wrap,
    }


def regularisation(cfg: SkdCtcConfig) -> Regularisation:
    """Masks and LayerDrop of fine-tuning."""
    time = channel = None
    if cfg.apply_mask and cfg.mask_prob > 0:
        time = SpanMask(
            prob=cfg.mask_prob,
            length=cfg.mask_length,
            selection=_name(cfg.mask_selection),
            other=cfg.mask_other,
            no_overlap=cfg.no_mask_overlap,
            min_space=cfg.mask_min_space or 0,
            min_spans=2,
            same_count=cfg.require_same_masks,
            dropout=cfg.mask_dropout,
        )
    if cfg.apply_mask and cfg.mask_channel_prob > 0:
        channel = SpanMask(
            prob=cfg.mask_channel_prob,
            length=cfg.mask_channel_length,
            selection=_name(cfg.mask_channel_selection),
            other=cfg.mask_channel_other,
            no_overlap=cfg.no_mask_channel_overlap,
            min_space=cfg.mask_channel_min_space or 0,
        )
    return Regularisation(time, channel, cfg.mask_channel_before, cfg.layerdrop)


def _name(choice: Any) -> str:
    return str(getattr(choice, "value", choice))
