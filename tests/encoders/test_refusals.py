"""Checkpoints that cannot be read, or are not a pretrained encoder, are refused in a sentence."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fairseq_skd.encoders.checkpoint import load_checkpoint, load_pretrained
from fairseq_skd.errors import UserError
from tests.builders import architecture
from tests.encoders.checkpoints import MODEL, TAKEN, TASK, refusal, save

# ---- other models


def test_flat_configurations_of_others_are_named(tmp_path: Path) -> None:
    cfg = {"encoder_layers": 12, "relative_position_embedding": True}
    beats = save(tmp_path / "b.pt", cfg={**cfg, "input_patch_size": 16})
    assert refusal(beats) == f"model.w2v_path={beats} is a BEATs model; {TAKEN}"
    odd = save(tmp_path / "o.pt", cfg={**architecture(), "relative_position_embedding": 1})
    assert refusal(odd) == f"model.w2v_path={odd}: relative_position_embedding is neither true nor false"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_fn": "glu"}, "activation_fn='glu' is unknown (known: relu, "),
        ({"extractor_mode": "batch"}, "extractor_mode='batch' is unknown (known: default, layer_norm)"),
        ({"encoder_attention_heads": 5}, "encoder_embed_dim=32 is not a multiple of encoder_attention_heads=5"),
        ({"layer_type": "trf_adp"}, "has adapters (layer_type=trf_adp), which fine-tuning here does not support"),
    ],
)
def test_values_that_fail_an_assertion_in_fairseq(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(save(tmp_path / "c.pt", cfg={"model": {**MODEL, **changes}, "task": TASK}))


@pytest.mark.parametrize("model", ["data2vec_audio", "transformer_lm", "hubert_simple"])
def test_other_models_are_named(tmp_path: Path, model: str) -> None:
    path = save(tmp_path / "c.pt", cfg={"model": {**MODEL, "_name": model}, "task": TASK})
    assert refusal(path) == f"model.w2v_path={path} is a {model} model; {TAKEN}"


def test_a_text_model_trained_from_a_namespace_is_named(tmp_path: Path) -> None:
    # fairseq-train keeps a namespace as cfg.model for a model that has no dataclass.
    path = save(tmp_path / "c.pt", cfg={"model": argparse.Namespace(arch="lstm"), "task": argparse.Namespace(x=1)})
    assert refusal(path) == f"model.w2v_path={path} is a lstm model; {TAKEN}"


def test_an_old_style_text_model_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", args=argparse.Namespace(arch="transformer_iwslt_de_en", task="translation"))
    assert refusal(path) == f"model.w2v_path={path} is a transformer_iwslt_de_en model; {TAKEN}"


def test_a_model_without_a_name(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", cfg={"model": None, "task": TASK})
    assert refusal(path) == f"model.w2v_path={path} does not say what model it is; {TAKEN}"


@pytest.mark.parametrize("model", ["hubert_ctc", "wav2vec_ctc", "skd_ctc", "wav2vec_seq2seq"])
def test_fine_tuned_checkpoints_belong_to_another_key(tmp_path: Path, model: str) -> None:
    path = save(tmp_path / "c.pt", cfg={"model": {"_name": model}, "task": TASK})
    assert refusal(path) == (
        f"model.w2v_path={path} is a fine-tuned checkpoint ({model}): start from it with "
        f"checkpoint.finetune_from_model={path}, and set model.w2v_path to the pretrained checkpoint"
    )


def test_fine_tuned_weights_are_recognised_by_their_names(tmp_path: Path) -> None:
    weights = {"w2v_encoder.proj.bias": torch.zeros(3)}
    path = save(tmp_path / "c.pt", model=weights, cfg={"model": {}, "task": TASK})
    assert refusal(path).startswith(f"model.w2v_path={path} is a fine-tuned checkpoint (with a CTC head): start from")


@pytest.mark.parametrize("key", ["encoder_layers", "encoder_embed_dim", "conv_feature_layers"])
def test_a_configuration_that_lacks_a_required_key(tmp_path: Path, key: str) -> None:
    model = {name: value for name, value in MODEL.items() if name != key}
    path = save(tmp_path / "c.pt", cfg={"model": model, "task": TASK})
    assert refusal(path) == f"model.w2v_path={path} does not say its {key}, so the encoder cannot be built; {TAKEN}"


NO_SIZES = ["12", 0, -1, 2.5, True, [12]]


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in ("encoder_layers", "conv_pos") for value in NO_SIZES] + [("sample_rate", "16k")],
)
def test_sizes_are_positive_integers(tmp_path: Path, key: str, value: object) -> None:
    part = "task" if key == "sample_rate" else "model"
    cfg = {"model": dict(MODEL), "task": dict(TASK)}
    cfg[part][key] = value
    path = save(tmp_path / "c.pt", cfg=cfg)
    assert refusal(path) == (
        f"model.w2v_path={path}: {key}={value!r} is not a positive integer, so the encoder cannot be built"
    )


@pytest.mark.parametrize("value", ["__import__('os').system('touch {target}')", [(512, 10, 5)], "[(512, 10)]"])
def test_convolutions_are_read_and_not_executed(tmp_path: Path, value: object) -> None:
    target = tmp_path / "touched"
    text = value.replace("{target}", str(target)) if isinstance(value, str) else value
    path = save(tmp_path / "c.pt", cfg={"model": {**MODEL, "conv_feature_layers": text}, "task": TASK})
    sentence = refusal(path)
    assert sentence.startswith(f"model.w2v_path={path}: conv_feature_layers=")
    assert sentence.endswith("is not a sum of lists of (channels, kernel, stride) triples")
    assert not target.exists()


def test_variants_that_cannot_be_fine_tuned(tmp_path: Path) -> None:
    path = save(tmp_path / "q.pt", cfg={"model": {**MODEL, "_name": "wav2vec2", "quantize_input": True}})
    assert refusal(path) == (
        f"model.w2v_path={path} quantises its input (quantize_input), which fine-tuning here does not support"
    )
    conformer = {**MODEL, "_name": "wav2vec2", "layer_type": "conformer", "pos_enc_type": "rel_pos"}
    path = save(tmp_path / "c.pt", cfg={"model": conformer})
    assert refusal(path) == (
        f"model.w2v_path={path} is a conformer with pos_enc_type=rel_pos, but only pos_enc_type=abs is supported"
    )


# ---- files that cannot be read


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.pt") == f"model.w2v_path: checkpoint {tmp_path / 'no.pt'} does not exist"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"model.w2v_path={tmp_path} is a folder without config.json; {TAKEN}"
    with pytest.raises(UserError, match=f"^checkpoint {tmp_path} is a folder$"):
        load_checkpoint(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    path.touch()
    assert refusal(path) == f"model.w2v_path: checkpoint {path} cannot be read, it is truncated or not a PyTorch file"


@pytest.mark.parametrize("text", [b"# a readme\n", b"hello world\n", b"{}", b"version 1\n", b"PK\x03\x04 no more"])
def test_a_file_of_another_kind(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(text)
    assert refusal(path) in (
        f"model.w2v_path: checkpoint {path} cannot be read, it is truncated or not a PyTorch file",
        f"model.w2v_path: checkpoint {path} is refused: it is not a PyTorch file, or its pickle holds something "
        "other than weights and configuration",
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files(tmp_path: Path, legacy: bool) -> None:
    weights = {"a": torch.ones(40), "b": torch.zeros(3)}
    whole = save(tmp_path / "whole.pt", legacy, model=weights, cfg={"model": MODEL}).read_bytes()
    path = tmp_path / "cut.pt"
    for end in np.linspace(1, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:end])
        assert refusal(path).startswith(f"model.w2v_path: checkpoint {path} ")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.slow
def test_damaged_files_load_or_are_refused_in_a_sentence(tmp_path: Path, legacy: bool) -> None:
    cfg = OmegaConf.create({"model": MODEL, "task": TASK})
    whole = save(tmp_path / "whole.pt", legacy, cfg=cfg, args=argparse.Namespace(a=1)).read_bytes()
    path, random = tmp_path / "damaged.pt", np.random.default_rng(0)
    for _ in range(80):
        content = bytearray(whole)
        for place in random.integers(0, len(content), size=3):
            content[place] = random.integers(256)
        path.write_bytes(content)
        try:
            load_pretrained(path)
        except UserError as refused:
            assert "\n" not in str(refused)  # noqa: PT017


@pytest.mark.parametrize("state", [[1, 2], {"weights": {}}, {"model": None}, {"model": [1]}, torch.ones(2)])
def test_files_of_other_programs(tmp_path: Path, state: object) -> None:
    path = tmp_path / "c.pt"
    torch.save(state, path)
    assert refusal(path) == f"model.w2v_path: checkpoint {path} holds no 'model' dict: it is not a fairseq checkpoint"


@pytest.mark.parametrize(
    "parts", [{}, {"cfg": None}, {"cfg": {}}, {"cfg": "x"}, {"cfg": [1]}, {"args": {"arch": "hubert"}}, {"args": None}]
)
def test_weights_without_a_configuration(tmp_path: Path, parts: dict[str, Any]) -> None:
    path = save(tmp_path / "c.pt", **parts)
    assert (
        refusal(path)
        == f"model.w2v_path: checkpoint {path} has neither 'cfg' nor 'args': it is not a fairseq checkpoint"
    )


def test_an_interpolation_without_a_target(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", cfg=OmegaConf.create({"model": {**MODEL, "encoder_layers": "${task.layers}"}}))
    assert refusal(path) == (
        f"model.w2v_path={path}: model.encoder_layers='${{task.layers}}' cannot be resolved, only ${{section.key}} "
        "with a value is allowed in a checkpoint: replace it with the value"
    )
