"""Folders of transformers: names, shapes, files, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fairseq_skd.encoders.loading import load_pretrained
from fairseq_skd.encoders.pretrained import TAKEN, PretrainedEncoder
from fairseq_skd.errors import UserError
from tests.encoders.peers import LARGE, write_folder
from tests.encoders.test_loading import Harmful, refusal


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wav2vec2")
    write_folder(folder, "wav2vec2")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; None takes a key away."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def assert_same(found: PretrainedEncoder, expected: PretrainedEncoder) -> None:
    assert (found.kind, found.architecture) == (expected.kind, expected.architecture)
    assert set(expected.weights) <= set(found.weights)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


# ---- what is read


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("large", [False, True])
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


def test_keys_that_are_not_listed_have_the_defaults_of_transformers(tmp_path: Path) -> None:
    import transformers

    (tmp_path / "config.json").write_text('{"model_type": "wavlm"}')
    save_file({"encoder.layer_norm.bias": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "whole").mkdir()
    transformers.WavLMConfig().save_pretrained(tmp_path / "whole")
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "whole")
    short, whole = load_pretrained(tmp_path), load_pretrained(tmp_path / "whole")
    assert_same(short, whole)
    assert short.architecture["conv_feature_layers"].startswith("[(512, 10, 5), (512, 3, 2), ")


@pytest.mark.parametrize(
    ("audio", "normalize"),
    [({"do_normalize": True}, True), ({"do_normalize": False}, False), ({}, False), (None, False)],
)
def test_the_preprocessor_says_how_audio_is_scaled(folder: Path, audio: dict[str, Any] | None, normalize: bool) -> None:
    if audio is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000, **audio}))
    encoder = load_pretrained(folder)
    assert (encoder.normalize, encoder.sample_rate) == (normalize, 16000 if audio is None else 8000)


def to_bin(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, folder / "pytorch_model.bin")


def to_old_names(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """As on the hub: written before torch renamed the weight norm's parameters, by a class around the encoder."""
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


def test_a_missing_mask_embedding_is_drawn(tmp_path: Path) -> None:
    write_folder(tmp_path, "hubert", mask_time_prob=0.0, mask_feature_prob=0.0)
    assert "masked_spec_embed" not in load_file(tmp_path / "model.safetensors")
    drawn = load_pretrained(tmp_path).weights["mask_emb"]
    assert drawn.shape == (32,) and 0 <= drawn.min() < drawn.max() <= 1
    assert torch.equal(load_pretrained(tmp_path).weights["mask_emb"], drawn)


# ---- what is refused


@pytest.mark.parametrize("model_type", ["bert", "data2vec-audio", "wav2vec2-conformer", "unispeech-sat", None])
def test_other_models_are_named(folder: Path, model_type: str | None) -> None:
    sentence = refusal(edit(folder, model_type=model_type))
    assert sentence == f"model.w2v_path={folder} holds a Hugging Face model of type {model_type or 'unknown'}; {TAKEN}"


@pytest.mark.parametrize("name", ["Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification", "Wav2Vec2ForXVector"])
def test_fine_tuned_models_are_sent_back(folder: Path, name: str) -> None:
    assert refusal(edit(folder, architectures=[name])) == (
        f"model.w2v_path={folder} is a fine-tuned Hugging Face model ({name}): give model.w2v_path the pretrained "
        "model that it was made from (checkpoint.finetune_from_model takes fairseq's fine-tuned checkpoints only)"
    )


@pytest.mark.parametrize("architectures", [3, "Wav2Vec2Model", [], {}])
def test_other_ways_to_say_nothing_of_the_class(folder: Path, saved: Path, architectures: object) -> None:
    assert_same(load_pretrained(edit(folder, architectures=architectures)), load_pretrained(saved))


def test_a_fine_tuned_model_that_does_not_say_so(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.weight": torch.ones(32, 32)}, folder / "model.safetensors")
    assert "is a fine-tuned Hugging Face model (with a CTC head): give" in refusal(edit(folder, architectures=None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"hidden_act": "gelu_new"},
            'hidden_act="gelu_new" in its config.json cannot be built here, only "gelu" or "relu"',
        ),
        ({"feat_extract_activation": "relu"}, 'feat_extract_activation="relu" in its config.json cannot be built here'),
        ({"feat_extract_norm": "batch"}, 'only "group" or "layer"'),
        ({"add_adapter": True}, "add_adapter=true in its config.json cannot be built here, only false"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim=16 in its config.json cannot be built here, only null"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm=true"),
        (
            {"feat_proj_layer_norm": False},
            "feat_proj_layer_norm=false in its config.json cannot be built here, only true",
        ),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps=1e-12"),
        ({"conv_dim": [24] * 6}, "conv_dim, conv_kernel, conv_stride in its config.json are not lists of one length"),
        ({"conv_kernel": 3}, "are not lists of one length"),
        ({"conv_stride": ["__import__('os')"] * 7}, "is not a sum of lists of (channels, kernel, stride) triples"),
        ({"conv_dim": [24] * 6 + [32]}, "fairseq has no projection from 32 features to a width of as many"),
        ({"hidden_size": "32"}, "encoder_embed_dim='32' is not a positive integer"),
        ({"num_attention_heads": 5}, "encoder_embed_dim=32 is no multiple of encoder_attention_heads=5"),
        ({"num_conv_pos_embedding_groups": 3}, "encoder_embed_dim=32 is no multiple of conv_pos_groups=3"),
        (
            {"model_type": "wavlm", "num_buckets": 30},
            "num_buckets=30 and max_distance=800 make no relative position bias",
        ),
        ({"model_type": "wavlm", "num_buckets": 32, "max_bucket_distance": 8}, "the distance above a quarter of them"),
    ],
)
def test_what_cannot_be_built_names_the_key(folder: Path, changes: dict[str, Any], words: str) -> None:
    sentence = refusal(edit(folder, **changes))
    assert sentence.startswith(f"model.w2v_path={folder}")
    assert words in sentence


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(("text", "words"), [("{", "is not JSON, or is truncated"), ("[]", "is not a JSON object")])
def test_damaged_json(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text)
    assert refusal(folder) == f"{folder / name} {words}"


def test_a_preprocessor_that_says_neither(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"do_normalize": "yes"}')
    assert "preprocessor_config.json: do_normalize='yes' is neither true nor false" in refusal(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == (
        f"model.w2v_path={folder} has config.json but no weights: "
        "neither model.safetensors nor pytorch_model.bin is in it"
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_safetensors(folder: Path, share: float) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert refusal(folder) == f"checkpoint {file} cannot be read, it is truncated or not a safetensors file"


def test_a_clone_without_git_lfs(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_text("version https://git-lfs.example/spec/v1\noid sha256:0\nsize 7\n")
    assert refusal(folder) == f"checkpoint {file} is a pointer of git-lfs and not the weights: run git lfs pull there"


def test_code_in_the_weights_is_named_and_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    target = tmp_path / "made"
    torch.save({"a": Harmful(Path.mkdir, target)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin is refused: it holds " in refusal(folder)
    assert not target.exists()


@pytest.mark.parametrize("content", [[1], torch.ones(2)])
def test_weights_without_names(folder: Path, content: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert refusal(folder) == f"checkpoint {folder / 'pytorch_model.bin'} holds no weights by name"


@pytest.mark.parametrize("name", ["../other/model.bin", "/etc/passwd", "part/model.bin", 7])
def test_an_index_stays_in_its_folder(folder: Path, name: object) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(folder) == f"{index} names {name!r}, which is not a file of its folder"


@pytest.mark.parametrize(
    ("name", "words"), [("..", "is a folder"), ("", "is a folder"), ("part.bin", "does not exist")]
)
def test_an_index_of_what_is_no_file(folder: Path, name: str, words: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(folder) == f"checkpoint {folder / name} {words}"


def test_a_file_of_the_folder_is_sent_to_the_folder(folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        assert refusal(folder / name).endswith(f"; for the model in its folder give model.w2v_path={folder}")


def test_a_missing_library_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(UserError, match=r"needs the library safetensors: pip install safetensors$"):
        load_pretrained(folder)
