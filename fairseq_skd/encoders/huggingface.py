"""Read folders of Hugging Face transformers (hubert, wav2vec2, wavlm) without that library."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_skd.encoders.formats import other_folder
from fairseq_skd.encoders.pretrained import KINDS, TAKEN, PretrainedEncoder
from fairseq_skd.encoders.weight_files import load_safetensors, load_weights_only
from fairseq_skd.errors import UserError, shown

logger = logging.getLogger(__name__)

CONFIG = "config.json"
# Files that say how audio is prepared: the usual one, and the one of newer processors (nested).
PREPROCESSOR, PROCESSOR, NESTED = "preprocessor_config.json", "processor_config.json", "feature_extractor"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

# transformers' key -> fairseq's key, and the default if the file does not list it.
ARCHITECTURE: dict[str, tuple[str, Any]] = {
    "num_hidden_layers": ("encoder_layers", 12),
    "hidden_size": ("encoder_embed_dim", 768),
    "intermediate_size": ("encoder_ffn_embed_dim", 3072),
    "num_attention_heads": ("encoder_attention_heads", 12),
    "hidden_act": ("activation_fn", "gelu"),
    "do_stable_layer_norm": ("layer_norm_first", False),
    "conv_bias": ("conv_bias", False),
    "num_conv_pos_embeddings": ("conv_pos", 128),
    "num_conv_pos_embedding_groups": ("conv_pos_groups", 16),
}
WAVLM: dict[str, tuple[str, Any]] = {
    "num_buckets": ("num_buckets", 320),
    "max_bucket_distance": ("max_distance", 800),
}
# Lists of equal length, one entry per convolution.
_CONVOLUTIONS: dict[str, list[int]] = {
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
}
EXTRACTORS = {"group": "default", "layer": "layer_norm"}
# The only values that fairseq's classes support; the first is transformers' default.
_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", "relu"),
    "feat_extract_activation": ("gelu",),
    "feat_extract_norm": ("group", "layer"),
    "do_stable_layer_norm": (False, True),
    "conv_bias": (False, True),
    "layer_norm_eps": (1e-5,),
    "feat_proj_layer_norm": (True,),
    "conv_pos_batch_norm": (False,),
    "add_adapter": (False,),
    "adapter_attn_dim": (None,),
}
_ONLY_OF: dict[str, dict[str, tuple[Any, ...]]] = {"hubert": {"conv_pos_batch_norm": (False, True)}}
_LARGEST_JSON = 8 << 20  # bytes; an index of 50,000 tensors is smaller
# How the names of tensors begin that fine-tuning adds. ContentVec's final_proj is from pretraining.
_HEADS = ("lm_head.", "classifier.", "projector.", "layer_weights", "tdnn.")

# Full names of tensors: transformers' pattern, fairseq's replacement.
_CONV, _LAYER = r"feature_extractor\.conv_layers\.(\d+)\.", r"encoder\.layers\.(\d+)\."
_NAMES = (
    (rf"{_CONV}conv\.(\w+)", r"feature_extractor.conv_layers.\1.0.\2"),
    (r"feature_projection\.layer_norm\.(\w+)", r"layer_norm.\1"),
    (r"feature_projection\.projection\.(\w+)", r"post_extract_proj.\1"),
    (r"masked_spec_embed", r"mask_emb"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", r"encoder.pos_conv.0.weight_g"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", r"encoder.pos_conv.0.weight_v"),
    (r"encoder\.pos_conv_embed\.conv\.(\w+)", r"encoder.pos_conv.0.\1"),
    (rf"{_LAYER}layer_norm\.(\w+)", r"encoder.layers.\1.self_attn_layer_norm.\2"),
    (rf"{_LAYER}feed_forward\.intermediate_dense\.(\w+)", r"encoder.layers.\1.fc1.\2"),
    (rf"{_LAYER}feed_forward\.output_dense\.(\w+)", r"encoder.layers.\1.fc2.\2"),
    (rf"{_LAYER}attention\.gru_rel_pos_linear\.(\w+)", r"encoder.layers.\1.self_attn.grep_linear.\2"),
    (rf"{_LAYER}attention\.gru_rel_pos_const", r"encoder.layers.\1.self_attn.grep_a"),
    (rf"{_LAYER}attention\.rel_attn_embed\.(\w+)", r"encoder.layers.\1.self_attn.relative_attention_bias.\2"),
    (rf"{_LAYER}attention\.(\w+)\.(\w+)", r"encoder.layers.\1.self_attn.\2.\3"),
)
_BATCH_NORM = (
    (r"encoder\.pos_conv_embed\.batch_norm\.(\w+)", r"encoder.pos_conv.0.\1"),
    (r"encoder\.pos_conv_embed\.conv\.(\w+)", r"encoder.pos_conv.1.\1"),
)
_EXTRACTOR_NORM = {
    "default": r"feature_extractor.conv_layers.\1.2.\2",
    "layer_norm": r"feature_extractor.conv_layers.\1.2.1.\2",
}


def load_folder(folder: Path) -> PretrainedEncoder:
    """Read ``config.json``, the audio settings if present, and the weights.

    Raises:
        UserError: a file is missing or damaged, or the folder holds another model, a fine-tuned
            model, or a variant that fairseq's classes do not support.
    """
    source = f"model.w2v_path={folder}"
    if not (folder / CONFIG).is_file():
        raise UserError(f"{source} is a folder without {CONFIG}; {other_folder(folder)}{TAKEN}")
    config = read_json(folder / CONFIG)
    _refuse_others(config, source)
    encoder = read_encoder(folder, config, source)
    if head := min((name for name in encoder.weights if name.startswith(_HEADS)), default=""):
        raise UserError(_fine_tuned(folder, source, head, config.get("architectures")))
    return encoder


def read_encoder(folder: Path, config: Mapping[str, Any], source: str) -> PretrainedEncoder:
    """Read architecture, audio settings and all weights, a head included, under fairseq's names.

    Args:
        folder: the model's folder.
        config: its ``config.json``.
        source: its name for messages.

    Raises:
        UserError: a file is missing or damaged, or fairseq's classes do not support the variant.
    """
    model = fairseq_architecture(config, source)
    audio, said_by = _audio(folder, config)
    encoder = PretrainedEncoder.from_w2v_args({"model": model, "task": audio}, source)
    encoder.normalize_said_by = said_by
    weights = fairseq_names(_read_weights(folder, source), model["extractor_mode"])
    if encoder.conv_layers[-1].channels == model["encoder_embed_dim"]:
        _drop_identity(weights, model["encoder_embed_dim"], source)
    if "mask_emb" not in weights:  # transformers saves none if its masking is off
        noise = torch.rand(model["encoder_embed_dim"], generator=torch.Generator().manual_seed(0))
        weights["mask_emb"] = noise  # fairseq's initialisation
    encoder.check_size(weights)
    encoder.weights = weights
    return encoder


def _drop_identity(weights: dict[str, Tensor], width: int, source: str) -> None:
    """Drop the projection between equal widths, which fairseq has not and transformers has."""
    matrix, bias = (weights.pop(f"post_extract_proj.{name}", None) for name in ("weight", "bias"))
    if matrix is None or bias is None or not torch.equal(matrix, torch.eye(width)) or bool(bias.any()):
        raise UserError(
            f"{source}: conv_dim ends with {width} in its {CONFIG}, which equals hidden_size: fairseq has no "
            f"projection between equal widths"
        )


def fairseq_architecture(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Translate the model's keys from transformers to fairseq.

    Raises:
        UserError: fairseq's classes do not support the variant; the message names the key.
    """
    for key, values in {**_ONLY, **_ONLY_OF.get(config["model_type"], {})}.items():
        value = config.get(key, values[0])
        if value not in values:
            only = " or ".join(json.dumps(choice) for choice in values)
            raise UserError(
                f"{source}: {key}={json.dumps(value)[:100]} in its {CONFIG} is not supported, only {only} is"
            )
    dims, kernels, strides = (config.get(key, default) for key, default in _CONVOLUTIONS.items())
    if not all(isinstance(sizes, list) and len(sizes) == len(dims) for sizes in (dims, kernels, strides)):
        raise UserError(f"{source}: {', '.join(_CONVOLUTIONS)} in its {CONFIG} are not lists of equal length")
    keys = {**ARCHITECTURE, **(WAVLM if config["model_type"] == "wavlm" else {})}
    model = {ours: config.get(theirs, default) for theirs, (ours, default) in keys.items()}
    model["_name"] = config["model_type"]
    model["extractor_mode"] = EXTRACTORS[config.get("feat_extract_norm", "group")]
    model["conv_feature_layers"] = str(list(zip(dims, kernels, strides, strict=True)))
    if config.get("conv_pos_batch_norm"):
        model["conv_pos_batch_norm"] = True
    return model


def fairseq_names(weights: Mapping[str, Tensor], extractor_mode: str) -> dict[str, Tensor]:
    """Rename tensors from transformers to fairseq; unknown names stay."""
    norm = (rf"{_CONV}layer_norm\.(\w+)", _EXTRACTOR_NORM[extractor_mode])
    batch_norm = _BATCH_NORM if any("pos_conv_embed.batch_norm." in str(name) for name in weights) else ()
    names = (norm, *batch_norm, *_NAMES)
    renamed = {}
    for name, tensor in weights.items():
        bare = re.sub(rf"^({'|'.join(KINDS)})\.", "", str(name))
        for pattern, replacement in names:
            bare, found = re.subn(rf"^{pattern}$", replacement, bare)
            if found:
                break
        renamed[bare] = tensor
    return renamed


def _refuse_others(config: Mapping[str, Any], source: str) -> None:
    kind = config.get("model_type")
    if kind not in KINDS:
        raise UserError(f"{source} holds a Hugging Face model of type {shown(kind or 'unknown')}; {TAKEN}")


def _fine_tuned(folder: Path, source: str, head: str, classes: object) -> str:
    """Say what to do about a model whose weights include the tensor ``head``."""
    kind = f", class {shown(str(classes[0]))}" if isinstance(classes, list) and classes else ""
    told = f"{source} is a fine-tuned Hugging Face model (with {shown(head)}{kind})"
    if head.startswith("lm_head."):
        return (
            f"{told}: to start from its encoder and its head, set checkpoint.finetune_from_model={folder} and leave "
            f"model.w2v_path out"
        )
    return f"{told}: set model.w2v_path to the pretrained model that it was fine-tuned from"


def _audio(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return how audio is prepared, and who says whether it is normalised.

    If no file says it, the norm of the extractor decides: models with a layer-norm extractor
    (large) were pretrained with normalised audio, models with a group-norm extractor (base)
    without.

    Raises:
        UserError: a value cannot be used, or two files contradict each other.
    """
    audio = _audio_settings(folder)
    for key in ("do_normalize", "sampling_rate"):
        said = [(name, part[key]) for name, part in audio.items() if key in part]
        if len(said) == 2 and said[0][1] != said[1][1]:  # transformers 4 obeys the first, 5 the second
            values = " and ".join(f"{name} says {key}={json.dumps(value)[:100]}" for name, value in said)
            raise UserError(f"{folder}: {values}: correct the wrong file, or delete it")
    settings = {key: value for part in audio.values() for key, value in part.items()}
    norm = config.get("feat_extract_norm", "group")
    normalize = settings.get("do_normalize", norm == "layer")
    file = next((name for name, part in audio.items() if "do_normalize" in part), None)
    if not isinstance(normalize, bool):
        raise UserError(f"{folder / str(file)}: do_normalize={repr(normalize)[:100]} is neither true nor false")
    said_by = f"{folder / str(file)} says do_normalize={json.dumps(normalize)}"
    if file is None:
        said_by = f"feat_extract_norm={norm} in {folder / CONFIG} suggests normalize={json.dumps(normalize)}"
        logger.info("%s; no file there says do_normalize", said_by)
    return {"normalize": normalize, "sample_rate": settings.get("sampling_rate", 16000)}, said_by


def _audio_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the audio settings by the file that holds them."""
    audio = {name: read_json(folder / name) for name in (PREPROCESSOR, PROCESSOR) if (folder / name).is_file()}
    if PROCESSOR in audio:
        nested = audio[PROCESSOR].get(NESTED, {})
        if not isinstance(nested, dict):
            raise UserError(f"{folder / PROCESSOR}: {NESTED} is not a JSON object")
        audio[PROCESSOR] = nested
    return audio


def weight_files(folder: Path, source: str) -> list[str]:
    """List the files of the weights: one, or the shards that an index names.

    Raises:
        UserError: there are none, or the index is damaged.
    """
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [name]
        if index.is_file():
            return _shards(index)
    raise UserError(f"{source} has {CONFIG} but no weights: add {' or '.join(WEIGHTS)}")


def _read_weights(folder: Path, source: str) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for shard in weight_files(folder, source):
        read = load_safetensors if shard.endswith(".safetensors") else load_weights_only
        tensors = read(folder / shard)
        if not isinstance(tensors, dict):
            raise UserError(f"checkpoint {folder / shard} is not a dict of named weights")
        weights.update(tensors)
    return weights


def _shards(index: Path) -> list[str]:
    """Return the files of an index, which is untrusted: each must be in the index's folder."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise UserError(f"{index} has no weight_map")
    for name in files.values():
        if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
            raise UserError(f"{index} names {repr(name)[:200]}, which is not a file in its folder")
    return sorted(set(files.values()))


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a model's folder.

    Raises:
        UserError: the file is too large, or is not a JSON object.
    """
    if file.stat().st_size > _LARGEST_JSON:
        raise UserError(f"{file} has more than {_LARGEST_JSON:,} bytes, too many for the {file.name} of a model")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON, or is truncated") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object")
    return content
