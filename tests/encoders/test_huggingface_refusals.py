"""Folders of Hugging Face transformers that are refused, each with one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.encoders.pretrained import TAKEN
from fairseq_skd.errors import UserError
from tests.encoders.checkpoints import Harmful, refusal
from tests.encoders.peers import edit, write_folder


@pytest.mark.parametrize("model_type", ["bert", "data2vec-audio", "wav2vec2-conformer", "unispeech-sat", None])
def test_other_models_are_named(folder: Path, model_type: str | None) -> None:
    sentence = refusal(edit(folder, model_type=model_type))
    assert sentence == f"model.w2v_path={folder} holds a Hugging Face model of type {model_type or 'unknown'}; {TAKEN}"


@pytest.mark.parametrize(
    ("suffix", "head"),
    [
        ("ForCTC", "lm_head.bias"),
        ("ForSequenceClassification", "classifier.bias"),
        ("ForAudioFrameClassification", "classifier.bias"),
        ("ForXVector", "classifier.bias"),
    ],
)
def test_fine_tuned_models_are_told_by_their_head(tmp_path: Path, suffix: str, head: str) -> None:
    changes: dict[str, Any] = {"tdnn_dim": [8] * 5, "xvector_output_dim": 8, "num_hidden_layers": 1}
    write_folder(tmp_path, "wav2vec2", suffix, **changes)
    told = (
        "set model.w2v_path to the pretrained model that it was fine-tuned from "
        "(checkpoint.finetune_from_model takes fairseq's fine-tuned checkpoints only)"
    )
    for classes, name in (([f"Wav2Vec2{suffix}"], f", class Wav2Vec2{suffix}"), (["My"], ", class My"), (None, "")):
        assert refusal(edit(tmp_path, architectures=classes)) == (
            f"model.w2v_path={tmp_path} is a fine-tuned Hugging Face model (with {head}{name}): {told}"
        )


def test_a_class_name_alone_is_not_enough(folder: Path) -> None:
    """Without a head, transformers would start with a random one."""
    assert load_pretrained(edit(folder, architectures=["Wav2Vec2ForCTC"])).depth == 4


@pytest.mark.parametrize("name", ["layer_weights", "projector.weight", "tdnn.0.kernel.weight", "lm_head.weight"])
def test_a_part_of_a_head_is_enough(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, name: torch.ones(3)}, folder / "model.safetensors")
    assert f"is a fine-tuned Hugging Face model (with {name}): set" in refusal(edit(folder, architectures=None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"hidden_act": "gelu_new"},
            'hidden_act="gelu_new" in its config.json is not supported, only "gelu" or "relu" is',
        ),
        ({"feat_extract_activation": "relu"}, 'feat_extract_activation="relu" in its config.json is not supported'),
        ({"feat_extract_norm": "batch"}, 'only "group" or "layer"'),
        ({"add_adapter": True}, "add_adapter=true in its config.json is not supported, only false is"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim=16 in its config.json is not supported, only null is"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm=true"),
        (
            {"feat_proj_layer_norm": False},
            "feat_proj_layer_norm=false in its config.json is not supported, only true is",
        ),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps=1e-12"),
        ({"conv_dim": [24] * 6}, "conv_dim, conv_kernel, conv_stride in its config.json are not lists of equal length"),
        ({"conv_kernel": 3}, "are not lists of equal length"),
        ({"conv_stride": ["__import__('os')"] * 7}, "is not a sum of lists of (channels, kernel, stride) triples"),
        ({"conv_dim": [24] * 6 + [32]}, "conv_dim ends with 32 in its config.json, which equals hidden_size"),
        ({"hidden_size": "32"}, "encoder_embed_dim='32' is not a positive integer"),
        ({"num_attention_heads": 5}, "encoder_embed_dim=32 is not a multiple of encoder_attention_heads=5"),
        ({"num_conv_pos_embedding_groups": 3}, "encoder_embed_dim=32 is not a multiple of conv_pos_groups=3"),
        (
            {"model_type": "wavlm", "num_buckets": 30},
            "num_buckets=30 and max_distance=800 do not define a relative position bias",
        ),
        ({"model_type": "wavlm", "num_buckets": 32, "max_bucket_distance": 8}, "max_distance above num_buckets / 4"),
    ],
)
def test_unsupported_values_name_the_key(folder: Path, changes: dict[str, Any], words: str) -> None:
    sentence = refusal(edit(folder, **changes))
    assert sentence.startswith(f"model.w2v_path={folder}")
    assert words in sentence


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(("text", "words"), [("{", "is not JSON, or is truncated"), ("[]", "is not a JSON object")])
def test_damaged_json(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text)
    assert refusal(folder) == f"{folder / name} {words}"


def test_a_preprocessor_with_neither_true_nor_false(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"do_normalize": "yes"}')
    assert "preprocessor_config.json: do_normalize='yes' is neither true nor false" in refusal(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == (
        f"model.w2v_path={folder} has config.json but no weights: add model.safetensors or pytorch_model.bin"
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
    assert refusal(folder) == (
        f"checkpoint {file} is a git-lfs pointer and not the weights: run git lfs pull in its folder"
    )


def test_code_in_the_weights_is_named_and_not_executed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    target = tmp_path / "made"
    torch.save({"a": Harmful(Path.mkdir, target)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin is refused: it holds " in refusal(folder)
    assert not target.exists()


@pytest.mark.parametrize("content", [[1], torch.ones(2)])
def test_weights_without_names(folder: Path, content: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert refusal(folder) == f"checkpoint {folder / 'pytorch_model.bin'} is not a dict of named weights"


@pytest.mark.parametrize("name", ["../other/model.bin", "/etc/passwd", "part/model.bin", "a\x1b[2J.bin", "a\nb.bin", 7])
def test_an_index_stays_in_its_folder(folder: Path, name: object) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(folder) == f"{index} names {name!r}, which is not a file in its folder"


@pytest.mark.parametrize(
    ("name", "words"), [("..", "is a folder"), ("", "is a folder"), ("part.bin", "does not exist")]
)
def test_an_index_that_names_a_folder_or_a_missing_file(folder: Path, name: str, words: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert refusal(folder) == f"checkpoint {folder / name} {words}"


def test_a_file_in_the_folder_suggests_the_folder(folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        assert refusal(folder / name).endswith(
            f"; for the Hugging Face model in its folder, set model.w2v_path={folder}"
        )


def test_a_missing_library_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(UserError, match=r"needs the library safetensors: pip install safetensors$"):
        load_pretrained(folder)
