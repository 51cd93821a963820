"""From the flat keys of ``model:`` to what the encoder is built with."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.encoders.masking import SpanMask
from fairseq_skd.encoders.trunk import Regularisation
from fairseq_skd.errors import UserError, shown
from fairseq_skd.models.configuration import SkdCtcConfig
from fairseq_skd.ranges import COUNT, DROPOUT, FINITE, NON_NEGATIVE, PROBABILITY, Range, check_ranges

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
