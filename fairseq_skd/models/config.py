"""The keys of ``model:`` for ``_name: skd_ctc``, their checks, and the saved configuration."""

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
    """Return the root configuration above a section; None if the section stands alone."""
    root = section._get_parent() if isinstance(section, DictConfig) else None
    return root if isinstance(root, DictConfig) else None


def select(root: DictConfig | None, key: str) -> Any:
    """Return the value of ``section.key``; None if the section, the key or the root is missing."""
    section, _, name = key.partition(".")
    if root is None or section not in root or root[section] is None or name not in root[section]:
        return None
    return root[section][name]


def keep(section: Any, name: str, key: str, value: Any) -> None:
    """Set a key in ``section`` and in the section ``name`` of the root configuration above it.

    The two differ if fairseq copied the section.
    """
    root = root_of(section)
    for node in (section, OmegaConf.select(root, name) if root is not None else None):
        if isinstance(node, DictConfig):
            with open_dict(node):
                node[key] = value


LAYER_TYPES = ChoiceEnum(["transformer", "conformer", "trf_adp"])  # the union over all fairseq builds


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


# Optional[...], not "| None", because omegaconf 2.0 reads these annotations.
@dataclass
class SkdCtcConfig(FairseqDataclass):
    """The keys of ``model:``. Keys of fairseq keep their name, default and meaning."""

    # Keys of fairseq_skd
    student_layers: list[int] = field(
        default_factory=lambda: [6],
        metadata={"help": "layer counts of the self-students, 1-based; [] is plain CTC fine-tuning"},
    )
    keep_layers: int = _key(0, "train only the first l layers of the pretrained encoder (layer pruning); 0: all")
    decode_layer: int = _key(0, "exit to decode: 0 the full model, l the student of l layers; 0 in training")

    # The pretrained encoder
    w2v_path: str = _key(MISSING, "pretrained HuBERT, wav2vec 2.0 or WavLM: a checkpoint or a Hugging Face folder")
    w2v_normalize: Optional[bool] = _key(None, "whether w2v_path was pretrained on normalised audio; null: as it says")
    w2v_args: Any = None  # the encoder's configuration, saved in every fine-tuned checkpoint
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
    mask_length: int = _key(10, "frames per span")
    mask_prob: float = _key(0.5, "share of frames covered if no spans overlapped")
    mask_selection: MASKING_DISTRIBUTION_CHOICES = _key("static", "distribution of span lengths")
    mask_other: float = _key(0.0, "second parameter of mask_selection")
    no_mask_overlap: bool = _key(False, "keep spans apart")
    mask_min_space: Optional[int] = _key(1, "with no_mask_overlap: frames between spans")
    require_same_masks: bool = _key(True, "mask equally many frames in all utterances of a batch")
    mask_dropout: float = _key(0.0, "share of masked frames to unmask again")
    zero_mask: bool = _key(False, "data2vec only: refused")

    # Masks over channels
    mask_channel_length: int = _key(10, "channels per span")
    mask_channel_prob: float = _key(0.0, "share of channels covered if no spans overlapped")
    mask_channel_selection: MASKING_DISTRIBUTION_CHOICES = _key("static", "distribution of span lengths")
    mask_channel_other: float = _key(0.0, "second parameter of mask_channel_selection")
    no_mask_channel_overlap: bool = _key(False, "keep spans apart")
    mask_channel_min_space: Optional[int] = _key(1, "with no_mask_channel_overlap: channels between spans")
    mask_channel_before: bool = _key(False, "mask channels before frames")

    # Frozen parameters
    freeze_finetune_updates: int = _key(0, "updates in which only the heads train")
    feature_grad_mult: float = _key(0.0, "scale of the feature extractor's gradient; 0 freezes it")
    freeze_regex: Optional[str] = _key(None, "freeze encoder parameters whose full name matches")

    # Output
    blank_weight: float = _key(0.0, "added to (or set as) the blank's logit")
    blank_mode: str = _key("add", "add or set")

    # Memory, and types of layers
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


# Keys of data2vec and of sequence-to-sequence models. A fairseq YAML may hold them at these values.
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
    """Check types, choices and ranges in ``cfg.model`` of a fine-tuned checkpoint.

    Args:
        saved: plain Python values, without interpolations.
        source: the checkpoint's name for messages.

    Returns:
        the keys of :class:`SkdCtcConfig`; unknown keys are left out.

    Raises:
        UserError: a value cannot be used; the message names the key.
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
    """Check for unknown choices, numbers out of range and values without effect.

    Raises:
        UserError: a value cannot be used; the message names the key and its valid values.
    """
    for key, value in _NO_EFFECT.items():
        if cfg[key] != value:
            raise UserError(f"model.{key}={cfg[key]} has no meaning for skd_ctc: set model.{key}={value}")
    if cfg.blank_mode not in ("add", "set"):
        raise UserError(f"model.blank_mode={cfg.blank_mode} is unknown: choose add or set")
    if _name(cfg.layer_type) == "trf_adp":
        raise UserError(
            "model.layer_type=trf_adp is not supported, because no pretrained encoder has weights for adapters: set "
            "model.layer_type=transformer"
        )
    if cfg.freeze_regex is not None:
        try:
            re.compile(cfg.freeze_regex)
        except re.error as error:
            raise UserError(f"model.freeze_regex={cfg.freeze_regex} is not a regular expression: {error}") from error
    check_ranges("model", cfg, RANGES)


def encoder_settings(cfg: SkdCtcConfig) -> dict[str, Any]:
    """Return the settings that fine-tuning overrides, under fairseq's names."""
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
    """Return masks and LayerDrop of fine-tuning."""
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
