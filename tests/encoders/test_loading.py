"""Pretrained checkpoints: how their kind is recognised, and how weights get into an encoder."""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.logging.meters import AverageMeter
from omegaconf import OmegaConf

from fairseq_skd.encoders.checkpoint import load_checkpoint, load_pretrained, load_weights
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.trunk import build_fairseq_encoder
from fairseq_skd.errors import UserError
from tests.builders import BUCKETS, architecture, letter_dictionary, pretrained_model, write_pretrained
from tests.encoders.checkpoints import MODEL, TASK, save


@pytest.mark.parametrize("style", ["cfg", "args"])
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.slow
def test_the_content_decides_the_kind(tmp_path: Path, kind: str, style: str, normalize: bool) -> None:
    path = write_pretrained(tmp_path / "model", kind, style, normalize, encoder_layers=2)
    encoder = load_pretrained(path)
    assert (encoder.kind, encoder.depth) == (kind, 2)
    assert (encoder.normalize, encoder.sample_rate) == (normalize, 16000)
    assert encoder.architecture == architecture(encoder_layers=2)
    expected = pretrained_model(kind, encoder_layers=2).state_dict()
    assert encoder.weights.keys() == expected.keys()
    assert all(torch.equal(encoder.weights[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_saved_configuration_rebuilds_the_same_encoder(tmp_path: Path) -> None:
    encoder = load_pretrained(write_pretrained(tmp_path / "w.pt", "wav2vec2", normalize=True, layer_norm_first=True))
    again = PretrainedEncoder.from_w2v_args(encoder.to_w2v_args())
    assert (again.kind, again.architecture, again.normalize, again.sample_rate) == (
        encoder.kind,
        encoder.architecture,
        True,
        16000,
    )
    assert again.weights == {}


@pytest.mark.parametrize("legacy", [False, True])
def test_omegaconf_nodes_become_plain(tmp_path: Path, legacy: bool) -> None:
    cfg = OmegaConf.create(
        {
            "model": {**MODEL, "_name": "wav2vec2", "encoder_layers": "${common.layers}"},
            "task": {**TASK, "labels": ["ltr"], "nothing": None},
            "common": {"layers": 5, "fp16": False, "lr": [1e-4, "x", [True]]},
        }
    )
    OmegaConf.set_struct(cfg, True)
    path = save(tmp_path / "old.pt", legacy, cfg=cfg)
    plain = load_checkpoint(path)["cfg"]
    assert plain["model"]["encoder_layers"] == 5
    assert type(plain) is dict
    assert plain["common"] == {"layers": 5, "fp16": False, "lr": [1e-4, "x", [True]]}
    assert type(plain["task"]["labels"]) is list


def test_contents_of_real_checkpoints_load(tmp_path: Path) -> None:
    meter = AverageMeter()
    meter.update(2.0)
    held = {
        "dictionary": letter_dictionary(),
        "namespace": argparse.Namespace(lr=[1e-4], name="x"),
        "scalars": [np.float64(1.5), np.float32(2.5), np.float16(0.5), np.int64(3), np.int32(4), np.bool_(True)],
        "text": np.str_("dev"),
        "ordered": OrderedDict(a=1),
        "meter": meter,
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    state = load_checkpoint(save(tmp_path / "c.pt", cfg={"model": MODEL, "task": TASK}, extra_state=held))
    loaded = state["extra_state"]
    assert loaded["dictionary"] == held["dictionary"]
    assert loaded["dictionary"].index("|") == letter_dictionary().index("|")
    assert loaded["namespace"].lr == [1e-4]
    assert loaded["scalars"] == held["scalars"]
    assert [type(scalar) for scalar in loaded["scalars"]] == [type(scalar) for scalar in held["scalars"]]
    assert (loaded["text"], loaded["ordered"]) == ("dev", {"a": 1})
    assert loaded["meter"].avg == 2.0
    assert torch.equal(loaded["half"], held["half"])


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_scalars_of_numpy_1_and_2_load_on_either(tmp_path: Path, module: bytes) -> None:
    path = save(tmp_path / "c.pt", legacy=True, cfg={"model": MODEL}, extra_state={"val_loss": np.float64(1.5)})
    content = path.read_bytes()
    here = next(name for name in (b"numpy._core.multiarray", b"numpy.core.multiarray") if name in content)
    path.write_bytes(content.replace(here + b"\nscalar", module + b"\nscalar"))
    assert module in path.read_bytes()
    assert load_checkpoint(path)["extra_state"]["val_loss"] == 1.5


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "c.pt", cfg={"model": MODEL, "task": TASK})
    assert load_checkpoint("~/c.pt")["cfg"]["task"]["normalize"]


@pytest.mark.parametrize("gated", [True, False, None])
@pytest.mark.slow
def test_microsoft_files_are_recognised_by_their_content(tmp_path: Path, gated: bool | None) -> None:
    path = write_pretrained(tmp_path / "file", "wavlm", normalize=True, gru_rel_pos=bool(gated))
    state = torch.load(path, weights_only=True)
    if gated is None:  # off by default in Microsoft's code
        del state["cfg"]["gru_rel_pos"]
    torch.save(state, path)
    encoder = load_pretrained(path)
    assert (encoder.kind, encoder.depth, encoder.normalize, encoder.sample_rate) == ("wavlm", 4, True, 16000)
    defaults = {"activation_fn": "gelu", "layer_norm_first": False, "conv_bias": False}
    assert encoder.architecture == {**architecture(), **defaults, **BUCKETS, "gru_rel_pos": bool(gated)}
    again = PretrainedEncoder.from_w2v_args(encoder.to_w2v_args())
    assert (again.kind, again.architecture) == ("wavlm", encoder.architecture)
    module = build_fairseq_encoder(again, 4, {})
    load_weights(module, encoder.weights, "x")
    assert hasattr(module.encoder.layers[3].self_attn, "grep_a") == bool(gated)


# ---- weights into an encoder


def test_weights_are_copied_and_extra_weights_ignored() -> None:
    module = torch.nn.Linear(3, 2)
    weights = {"weight": torch.ones(2, 3), "bias": torch.zeros(2), "final_proj.weight": torch.ones(9)}
    load_weights(module, weights, "model.w2v_path=x.pt")
    assert torch.equal(module.weight, weights["weight"])
    assert torch.equal(module.bias, weights["bias"])
    module.weight.data.fill_(7)
    assert weights["weight"].max() == 1


def test_missing_weights_are_counted_and_named() -> None:
    with pytest.raises(UserError) as refused:
        load_weights(torch.nn.Linear(3, 2), {"weight": torch.ones(2, 3)}, "model.w2v_path=x.pt")
    assert str(refused.value) == "model.w2v_path=x.pt lacks 1 of the encoder's 2 tensors, such as bias"
    with pytest.raises(UserError, match="lacks 2 of the encoder's 2 tensors, such as weight$"):
        load_weights(torch.nn.Linear(3, 2), {"weight": "no tensor"}, "x")  # type: ignore[dict-item]


def test_weights_of_another_shape_are_named() -> None:
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(UserError) as refused:
        load_weights(module, {"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, "model.w2v_path=x.pt")
    assert str(refused.value) == "model.w2v_path=x.pt: weight has shape (2, 4), but its configuration needs (2, 3)"
    assert torch.equal(module.weight, before)
