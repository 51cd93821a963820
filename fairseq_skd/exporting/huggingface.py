"""Format ``hf``: a folder for ``AutoModelForCTC`` and ``AutoProcessor`` of transformers."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fairseq_skd.encoders.huggingface import ARCHITECTURE, CONFIG, EXTRACTORS, PREPROCESSOR, WAVLM
from fairseq_skd.encoders.huggingface_ctc import TOKENIZER, VOCABULARY
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.units import WORD_END, WORD_MARK
from fairseq_skd.models.state_dict import full_model
from fairseq_skd.recognizer import Recognizer

_CLASSES = {"hubert": "HubertForCTC", "wav2vec2": "Wav2Vec2ForCTC", "wavlm": "WavLMForCTC"}
# fairseq's key, the values that transformers' classes have (the first is fairseq's default).
_ONLY: dict[str, tuple[Any, ...]] = {
    "layer_type": ("transformer",),
    "activation_fn": ("gelu", "relu"),
    "conv_pos_batch_norm": (False,),
    "pos_conv_depth": (1,),
    "crop_seq_to_multiple": (1,),
}
_ONLY_OF: dict[str, dict[str, tuple[Any, ...]]] = {
    "hubert": {"conv_pos_batch_norm": (False, True)},
    "wavlm": {"gru_rel_pos": (True,)},
}
# fairseq's pattern, transformers' replacement.
_LAYER = r"encoder\.layers\.(\d+)\."
_NAMES = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(\w+)", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?(\w+)", r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"layer_norm\.(\w+)", r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(\w+)", r"feature_projection.projection.\1"),
    (r"mask_emb", r"masked_spec_embed"),
    (r"encoder\.pos_conv\.0\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.bias", r"encoder.pos_conv_embed.conv.bias"),
    (rf"{_LAYER}self_attn_layer_norm\.(\w+)", r"encoder.layers.\1.layer_norm.\2"),
    (rf"{_LAYER}fc1\.(\w+)", r"encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (rf"{_LAYER}fc2\.(\w+)", r"encoder.layers.\1.feed_forward.output_dense.\2"),
    (rf"{_LAYER}self_attn\.grep_linear\.(\w+)", r"encoder.layers.\1.attention.gru_rel_pos_linear.\2"),
    (rf"{_LAYER}self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (rf"{_LAYER}self_attn\.relative_attention_bias\.(\w+)", r"encoder.layers.\1.attention.rel_attn_embed.\2"),
    (rf"{_LAYER}self_attn\.(\w+)\.(\w+)", r"encoder.layers.\1.attention.\2.\3"),
)

_BATCH_NORM = (
    (r"encoder\.pos_conv\.0\.(\w+)", r"encoder.pos_conv_embed.batch_norm.\1"),
    (r"encoder\.pos_conv\.1\.(\w+)", r"encoder.pos_conv_embed.conv.\1"),
)


def write(rec: Recognizer, folder: Path) -> None:
    """Write configuration, weights, tokenizer and settings of the audio.

    Args:
        rec: loaded at one exit, float32, on the CPU.
        folder: an empty folder.

    Raises:
        UserError: the checkpoint holds no dictionary, or transformers has no such model.
    """
    (layers,) = rec.exits
    encoder = PretrainedEncoder.from_w2v_args(rec.config["model"]["w2v_args"]).first_layers(layers)
    _check(rec, encoder)
    config = _config(rec, encoder)
    masked = max(config["mask_time_prob"], config["mask_feature_prob"]) > 0
    weights = _weights(rec, encoder, layers, masked)
    with replacing(folder / "model.safetensors") as beside:  # save_file makes a file that only its owner can read
        save_file(weights, beside, metadata={"format": "pt"})
    _write_json(folder / CONFIG, config)
    audio = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "processor_class": "Wav2Vec2Processor",
        "feature_size": 1,
        "sampling_rate": rec.sample_rate,
        "do_normalize": encoder.normalize,
        "padding_value": 0.0,
        "padding_side": "right",
        # transformers' group norm includes padding, with or without a mask.
        "return_attention_mask": config["feat_extract_norm"] == "layer",
    }
    _write_json(folder / PREPROCESSOR, audio)
    _write_tokenizer(rec, folder)


def _check(rec: Recognizer, encoder: PretrainedEncoder) -> None:
    """Check that transformers has the model."""
    for key, values in {**_ONLY, **_ONLY_OF.get(encoder.kind, {})}.items():
        value = encoder.architecture.get(key, values[0])
        if value not in values:
            raise UserError(
                f"checkpoint {rec.path} cannot be written as hf: its encoder has {key}={value}, but transformers' "
                f"{_CLASSES[encoder.kind]} is written with {key}={' or '.join(map(str, values))} only: choose another "
                f"--format"
            )
    cfg = rec.model.cfg
    if cfg.blank_weight != 0 and cfg.blank_mode == "set":
        raise UserError(
            f"checkpoint {rec.path} cannot be written as hf: model.blank_mode=set makes the blank's logit a constant "
            f"({cfg.blank_weight}), which no head of transformers does: choose another --format"
        )
    if rec.post_process not in ("letter", "sentencepiece"):
        raise UserError(
            f"checkpoint {rec.path} cannot be written as hf: criterion.post_process={rec.post_process} has no "
            f"tokenizer there, only letter and sentencepiece have: choose another --format"
        )


def _config(rec: Recognizer, encoder: PretrainedEncoder) -> dict[str, Any]:
    """Make ``config.json``; settings of a training are those of the checkpoint."""
    cfg = rec.model.cfg
    keys = {**ARCHITECTURE, **(WAVLM if encoder.kind == "wavlm" else {})}
    modes = {ours: theirs for theirs, ours in EXTRACTORS.items()}
    convolutions = encoder.conv_layers
    batch_norm = {"conv_pos_batch_norm": True} if encoder.architecture.get("conv_pos_batch_norm") else {}
    return {
        "architectures": [_CLASSES[encoder.kind]],
        "model_type": encoder.kind,
        "dtype": "float32",
        "vocab_size": len(rec.symbols),
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        **{theirs: encoder.architecture.get(ours, default) for theirs, (ours, default) in keys.items()},
        "feat_extract_norm": modes[encoder.architecture.get("extractor_mode", "default")],
        "feat_extract_activation": "gelu",
        **batch_norm,
        "conv_dim": [layer.channels for layer in convolutions],
        "conv_kernel": [layer.kernel for layer in convolutions],
        "conv_stride": [layer.stride for layer in convolutions],
        "num_feat_extract_layers": len(convolutions),
        "layer_norm_eps": 1e-5,
        "hidden_dropout": cfg.dropout,
        "attention_dropout": cfg.attention_dropout,
        "activation_dropout": cfg.activation_dropout,
        "feat_proj_dropout": cfg.dropout_input,
        "final_dropout": cfg.final_dropout,
        "layerdrop": cfg.layerdrop,
        "apply_spec_augment": cfg.apply_mask,
        "mask_time_prob": cfg.mask_prob,
        "mask_time_length": cfg.mask_length,
        "mask_feature_prob": cfg.mask_channel_prob,
        "mask_feature_length": cfg.mask_channel_length,
        "ctc_loss_reduction": "mean",
        "ctc_zero_infinity": True,
    }


def _weights(rec: Recognizer, encoder: PretrainedEncoder, layers: int, masked: bool) -> dict[str, Tensor]:
    """Rename the weights, and make those that only transformers has."""
    weights = {}
    names = (*(_BATCH_NORM if encoder.architecture.get("conv_pos_batch_norm") else ()), *_NAMES)
    for name, tensor in full_model(rec.model.state_dict(), layers).items():
        if head := re.fullmatch(r"w2v_encoder\.proj\.(\w+)", name):
            weights[f"lm_head.{head[1]}"] = tensor
        else:
            weights[f"{encoder.kind}.{_their_name(name.removeprefix('w2v_encoder.w2v_model.'), names)}"] = tensor
    if not masked:  # their model has it only if it masks
        del weights[f"{encoder.kind}.masked_spec_embed"]
    weights["lm_head.bias"] = weights["lm_head.bias"].clone()
    weights["lm_head.bias"][0] += rec.model.cfg.blank_weight
    projection = f"{encoder.kind}.feature_projection.projection"
    if f"{projection}.weight" not in weights:  # equal widths
        width = encoder.architecture["encoder_embed_dim"]
        weights |= {f"{projection}.weight": torch.eye(width), f"{projection}.bias": torch.zeros(width)}
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _their_name(name: str, names: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in names:
        renamed, found = re.subn(rf"^{pattern}$", replacement, name)
        if found:
            return renamed
    return name  # the encoder's layer norms


def _write_tokenizer(rec: Recognizer, folder: Path) -> None:
    symbols = rec.symbols
    _write_json(folder / VOCABULARY, {symbol: index for index, symbol in enumerate(symbols)})
    settings: dict[str, Any] = {
        "processor_class": "Wav2Vec2Processor",
        "pad_token": symbols[0],  # CTC's blank
        "bos_token": symbols[0],
        "eos_token": symbols[2],
        "unk_token": symbols[3],
        "clean_up_tokenization_spaces": False,
    }
    if rec.post_process == "letter":
        letters = {"word_delimiter_token": WORD_END, "replace_word_delimiter_char": " ", "do_lower_case": False}
        _write_json(folder / TOKENIZER, {"tokenizer_class": "Wav2Vec2CTCTokenizer", **letters, **settings})
        return
    _write_json(folder / TOKENIZER, {"tokenizer_class": "PreTrainedTokenizerFast", **settings})
    _write_json(folder / "tokenizer.json", _piece_tokenizer(symbols))


def _piece_tokenizer(symbols: list[str]) -> dict[str, Any]:
    """Describe a tokenizer of the library tokenizers.

    It decodes as CTC does. It encodes a text with as few pieces as possible, because the dictionary
    does not have the scores of the SentencePiece model.
    """
    metaspace = {"type": "Metaspace", "replacement": WORD_MARK, "prepend_scheme": "always", "split": True}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    collapse = {"type": "CTC", "pad_token": symbols[0], "word_delimiter_token": WORD_END, "cleanup": False}
    strip = {"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": symbols[index], **added} for index in range(4)],
        "normalizer": None,
        "pre_tokenizer": metaspace,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [collapse, metaspace, {"type": "Fuse"}, strip]},
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[symbol, -1.0] for symbol in symbols],
            "byte_fallback": False,
        },
    }


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
