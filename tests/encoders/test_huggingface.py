"""Folders of Hugging Face transformers: names, shapes and files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.encoders.huggingface import fairseq_architecture
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from tests.encoders.peers import LARGE, edit, write_folder


def assert_same(found: PretrainedEncoder, expected: PretrainedEncoder) -> None:
    assert (found.kind, found.architecture) == (expected.kind, expected.architecture)
    assert set(expected.weights) <= set(found.weights)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.slow
def test_the_shape_is_read_from_the_configuration(tmp_path: Path, kind: str, large: bool) -> None:
    write_folder(tmp_path, kind, **(LARGE if large else {}))
    encoder = load_pretrained(tmp_path)
    convolutions = [(24, 10, 5), *[(24, 3, 2)] * 4, *[(24, 2, 2)] * 2]
    assert encoder.kind == kind
    assert encoder.architecture == {
        "extractor_mode": "layer_norm" if large else "default",
        "encoder_layers": 4,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 4,
        "activation_fn": "gelu",
        "layer_norm_first": large,
        "conv_feature_layers": str(convolutions),
        "conv_bias": large,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        **({"num_buckets": 32, "max_distance": 40} if kind == "wavlm" else {}),
    }
    assert (encoder.normalize, encoder.sample_rate) == (large, 16000)


@pytest.mark.slow
def test_missing_keys_have_the_defaults_of_transformers() -> None:
    import transformers

    short = fairseq_architecture({"model_type": "wavlm"}, "x")
    assert short == fairseq_architecture(transformers.WavLMConfig().to_dict(), "x")
    assert short["conv_feature_layers"].startswith("[(512, 10, 5), (512, 3, 2), ")


@pytest.mark.parametrize(
    ("audio", "normalize"),
    [({"do_normalize": True}, True), ({"do_normalize": False}, False), ({}, False), (None, False)],
)
def test_the_preprocessor_decides_how_audio_is_scaled(
    folder: Path, audio: dict[str, Any] | None, normalize: bool
) -> None:
    if audio is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000, **audio}))
    encoder = load_pretrained(folder)
    assert (encoder.normalize, encoder.sample_rate) == (normalize, 16000 if audio is None else 8000)


def to_bin(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, folder / "pytorch_model.bin")


def to_old_names(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Save with old names of weight norm, and a prefix from a class around the encoder."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    old = {}
    for name, tensor in weights.items():
        for new, former in names.items():
            name = name.replace(new, former)
        old[f"wav2vec2.{name}"] = tensor
    assert any("weight_g" in name for name in old)
    torch.save(
        {**old, "quantizer.codevectors": torch.ones(1), "project_q.bias": torch.ones(1)}, folder / "pytorch_model.bin"
    )


def to_shards(folder: Path, weights: dict[str, torch.Tensor], suffix: str) -> None:
    names = sorted(weights)
    halves = {f"part{number}.{suffix}": names[number::2] for number in (0, 1)}
    for file, part in halves.items():
        tensors = {name: weights[name].contiguous() for name in part}
        torch.save(tensors, folder / file) if suffix == "bin" else save_file(tensors, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    stem = "pytorch_model.bin" if suffix == "bin" else "model.safetensors"
    (folder / f"{stem}.index.json").write_text(json.dumps(index))


WAYS: dict[str, Callable[[Path, dict[str, torch.Tensor]], None]] = {
    "bin": to_bin,
    "old names": to_old_names,
    "bin in shards": lambda folder, weights: to_shards(folder, weights, "bin"),
    "safetensors in shards": lambda folder, weights: to_shards(folder, weights, "safetensors"),
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_in_other_files_are_the_same(folder: Path, saved: Path, way: str) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    WAYS[way](folder, weights)
    assert_same(load_pretrained(folder), load_pretrained(saved))


def test_safetensors_come_first(folder: Path, saved: Path) -> None:
    to_bin(folder, {"encoder.layer_norm.weight": torch.ones(1)})
    assert_same(load_pretrained(folder), load_pretrained(saved))


def test_a_pretraining_model_is_read_without_its_quantizer(tmp_path: Path, saved: Path) -> None:
    write_folder(tmp_path, "wav2vec2", "ForPreTraining")
    encoder = load_pretrained(tmp_path)
    assert set(load_pretrained(saved).weights) <= set(encoder.weights)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Wav2Vec2ForPreTraining"]


@pytest.mark.parametrize("architectures", [3, "Wav2Vec2Model", [], {}])
def test_a_config_that_names_no_class(folder: Path, saved: Path, architectures: object) -> None:
    assert_same(load_pretrained(edit(folder, architectures=architectures)), load_pretrained(saved))


def test_a_missing_mask_embedding_is_drawn(tmp_path: Path) -> None:
    write_folder(tmp_path, "hubert", mask_time_prob=0.0, mask_feature_prob=0.0)
    assert "masked_spec_embed" not in load_file(tmp_path / "model.safetensors")
    drawn = load_pretrained(tmp_path).weights["mask_emb"]
    assert drawn.shape == (32,) and 0 <= drawn.min() < drawn.max() <= 1
    assert torch.equal(load_pretrained(tmp_path).weights["mask_emb"], drawn)
