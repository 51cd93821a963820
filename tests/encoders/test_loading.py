"""Pretrained checkpoints: what is recognised, what is refused, and that nothing in a file is run."""

import argparse
import builtins
import os
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.logging.meters import AverageMeter
from omegaconf import OmegaConf

from fairseq_skd import compat
from fairseq_skd.encoders.loading import load_checkpoint, load_pretrained, load_weights
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.trunk import build_fairseq_encoder
from fairseq_skd.errors import UserError
from tests.builders import BUCKETS, architecture, letter_dictionary, pretrained_model, write_pretrained

TAKEN = (
    "model.w2v_path takes a pretrained HuBERT, wav2vec 2.0 or WavLM: a fairseq checkpoint, Microsoft's WavLM-*.pt or a "
    "Hugging Face folder"
)
MODEL = {"_name": "hubert", **architecture()}
TASK = {"_name": "hubert_pretraining", "normalize": True, "sample_rate": 16000}


def save(path: Path, legacy: bool = False, **state: Any) -> Path:
    """A checkpoint with an empty set of weights unless given."""
    torch.save({"model": {}, **state}, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_pretrained(path)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    return sentence


# ---- what is recognised


@pytest.mark.parametrize("style", ["cfg", "args"])
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_kind_is_told_from_the_content(tmp_path: Path, kind: str, style: str, normalize: bool) -> None:
    # The name of the file says nothing.
    path = write_pretrained(tmp_path / "model", kind, style, normalize, encoder_layers=2)
    encoder = load_pretrained(path)
    assert (encoder.kind, encoder.depth) == (kind, 2)
    assert (encoder.normalize, encoder.sample_rate) == (normalize, 16000)
    assert encoder.architecture == architecture(encoder_layers=2)
    expected = pretrained_model(kind, encoder_layers=2).state_dict()
    assert encoder.weights.keys() == expected.keys()
    assert all(torch.equal(encoder.weights[name], expected[name]) for name in expected)


def test_what_is_kept_builds_the_same_encoder_again(tmp_path: Path) -> None:
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
    assert load_pretrained(path).depth == 5
    plain = load_checkpoint(path)["cfg"]
    assert type(plain) is dict
    assert plain["common"] == {"layers": 5, "fp16": False, "lr": [1e-4, "x", [True]]}
    assert type(plain["task"]["labels"]) is list


def test_what_real_checkpoints_hold_loads(tmp_path: Path) -> None:
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
    assert load_pretrained("~/c.pt").normalize


@pytest.mark.parametrize("gated", [True, False, None])
def test_microsoft_files_are_told_from_their_content(tmp_path: Path, gated: bool | None) -> None:
    path = write_pretrained(tmp_path / "file", "wavlm", normalize=True, gru_rel_pos=bool(gated))
    state = torch.load(path, weights_only=True)
    if gated is None:  # Microsoft's code has it off by default
        del state["cfg"]["gru_rel_pos"]
    torch.save(state, path)
    encoder = load_pretrained(path)
    assert (encoder.kind, encoder.depth, encoder.normalize, encoder.sample_rate) == ("wavlm", 4, True, 16000)
    assert encoder.architecture == {**architecture(), **BUCKETS, "gru_rel_pos": bool(gated)}
    again = PretrainedEncoder.from_w2v_args(encoder.to_w2v_args())
    assert (again.kind, again.architecture) == ("wavlm", encoder.architecture)
    module = build_fairseq_encoder(again, 4, {})
    load_weights(module, encoder.weights, "x")
    assert hasattr(module.encoder.layers[3].self_attn, "grep_a") == bool(gated)


# ---- what is another thing


def test_flat_configurations_of_others_are_named(tmp_path: Path) -> None:
    cfg = {"encoder_layers": 12, "relative_position_embedding": True}
    beats = save(tmp_path / "b.pt", cfg={**cfg, "input_patch_size": 16})
    assert refusal(beats) == f"model.w2v_path={beats} is a BEATs model; {TAKEN}"
    plain = save(tmp_path / "p.pt", cfg={**architecture(), "relative_position_embedding": False})
    assert refusal(plain) == f"model.w2v_path={plain} is no WavLM: it has no relative_position_embedding; {TAKEN}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_fn": "glu"}, "activation_fn='glu' is unknown (known: relu, "),
        ({"extractor_mode": "batch"}, "extractor_mode='batch' is unknown (known: default, layer_norm)"),
        ({"encoder_attention_heads": 5}, "encoder_embed_dim=32 is no multiple of encoder_attention_heads=5"),
        ({"layer_type": "trf_adp"}, "has adapters (layer_type=trf_adp), which fine-tuning here does not support"),
    ],
)
def test_what_fairseq_would_assert_about(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
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
def test_fine_tuned_checkpoints_are_sent_where_they_belong(tmp_path: Path, model: str) -> None:
    path = save(tmp_path / "c.pt", cfg={"model": {"_name": model}, "task": TASK})
    assert refusal(path) == (
        f"model.w2v_path={path} is a fine-tuned checkpoint ({model}): start from it with "
        f"checkpoint.finetune_from_model={path}, and give model.w2v_path the pretrained one"
    )


def test_fine_tuned_weights_are_known_by_their_names(tmp_path: Path) -> None:
    weights = {"w2v_encoder.proj.bias": torch.zeros(3)}
    path = save(tmp_path / "c.pt", model=weights, cfg={"model": {}, "task": TASK})
    assert refusal(path).startswith(f"model.w2v_path={path} is a fine-tuned checkpoint (with a CTC head): start from")


@pytest.mark.parametrize("key", ["encoder_layers", "encoder_embed_dim", "conv_feature_layers"])
def test_a_configuration_that_lacks_what_matters(tmp_path: Path, key: str) -> None:
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
def test_convolutions_are_read_and_not_run(tmp_path: Path, value: object) -> None:
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
        f"model.w2v_path={path} is a conformer with pos_enc_type=rel_pos, only abs can be tapped layer by layer"
    )


# ---- what cannot be read


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.pt") == f"checkpoint {tmp_path / 'no.pt'} does not exist"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"model.w2v_path={tmp_path} is a folder without config.json; {TAKEN}"
    with pytest.raises(UserError, match=f"^checkpoint {tmp_path} is a folder$"):
        load_checkpoint(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    path.touch()
    assert refusal(path) == f"checkpoint {path} cannot be read, it is truncated or not a PyTorch file"


@pytest.mark.parametrize("text", [b"# a readme\n", b"hello world\n", b"{}", b"version 1\n", b"PK\x03\x04 no more"])
def test_a_file_of_another_kind(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(text)
    assert refusal(path) in (
        f"checkpoint {path} cannot be read, it is truncated or not a PyTorch file",
        f"checkpoint {path} is refused: it is not a PyTorch file, or its pickle holds something other than weights and "
        "configuration",
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files(tmp_path: Path, legacy: bool) -> None:
    weights = {"a": torch.ones(40), "b": torch.zeros(3)}
    whole = save(tmp_path / "whole.pt", legacy, model=weights, cfg={"model": MODEL}).read_bytes()
    path = tmp_path / "cut.pt"
    for end in np.linspace(1, len(whole) - 1, 25).astype(int):
        path.write_bytes(whole[:end])
        assert refusal(path).startswith(f"checkpoint {path} ")


@pytest.mark.parametrize("legacy", [False, True])
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
def test_other_peoples_files(tmp_path: Path, state: object) -> None:
    path = tmp_path / "c.pt"
    torch.save(state, path)
    assert refusal(path) == f"checkpoint {path} holds no 'model' dict: it is not a fairseq checkpoint"


@pytest.mark.parametrize(
    "parts", [{}, {"cfg": None}, {"cfg": {}}, {"cfg": "x"}, {"cfg": [1]}, {"args": {"arch": "hubert"}}, {"args": None}]
)
def test_weights_without_a_configuration(tmp_path: Path, parts: dict[str, Any]) -> None:
    path = save(tmp_path / "c.pt", **parts)
    assert refusal(path) == f"checkpoint {path} has neither 'cfg' nor 'args': it is not a fairseq checkpoint"


def test_an_interpolation_that_leads_nowhere(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", cfg=OmegaConf.create({"model": {**MODEL, "encoder_layers": "${task.layers}"}}))
    sentence = refusal(path)
    assert sentence.startswith(f"checkpoint {path}: its 'cfg' cannot be read (")
    assert "task.layers" in sentence


# ---- what would run code


class Harmful:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


CALLS = [
    (os.system, "touch {target}", "posix.system"),
    (os.mkdir, "{target}", "posix.mkdir"),
    (exec, "open('{target}', 'w')", "exec"),
    (getattr(builtins, "eval"), "open('{target}', 'w')", "eval"),  # noqa: B009
    (subprocess.getoutput, "touch {target}", "getoutput"),
    (torch.load, "{target}", "torch.serialization.load"),
    (Path, "{target}", "pathlib."),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["model", "cfg", "task_state"])
@pytest.mark.parametrize(("function", "argument", "named"), CALLS)
def test_code_in_a_checkpoint_is_named_and_not_run(
    tmp_path: Path, function: Any, argument: str, named: str, place: str, legacy: bool
) -> None:
    target = tmp_path / "touched"
    state: dict[str, Any] = {"cfg": {"model": MODEL, "task": TASK}, "model": {}}
    state[place] = {"x": Harmful(function, argument.replace("{target}", str(target)))}
    path = save(tmp_path / "c.pt", legacy, **state)
    sentence = refusal(path)
    assert not target.exists()
    assert sentence.startswith(f"checkpoint {path} is refused: it holds ")
    assert sentence.endswith("which is not on the allow-list of checkpoint contents and could run code")
    found = sentence.split("it holds ")[1].split(",")[0]
    assert named in found
    assert " " not in found


def test_no_setting_makes_our_loader_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "made"
    path = save(tmp_path / "c.pt", cfg={"model": MODEL}, x=Harmful(os.mkdir, str(target)))
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        for other in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, "1")
        assert "posix.mkdir" in refusal(path)
    assert not target.exists()


def test_nothing_on_the_allow_list_runs_what_it_is_given() -> None:
    """The allow-list's own names: containers, nodes, scalars, and no function but numpy's scalar."""
    functions = [entry for entry in compat.checkpoint_globals() if not isinstance(entry, type) and callable(entry)]
    assert {f"{entry.__module__}.{entry.__name__}" for entry in functions} - {"typing.Any"} == {
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    }
    packages = {entry.__module__.split(".")[0] for entry in compat.checkpoint_globals()}
    assert packages == {"fairseq", "argparse", "collections", "typing", "builtins", "omegaconf", "numpy"}


# ---- weights into an encoder


def test_weights_are_copied_and_extra_ones_left() -> None:
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
    assert str(refused.value) == "model.w2v_path=x.pt lacks 1 of the encoder's 2 tensors, first bias"
    with pytest.raises(UserError, match="lacks 2 of the encoder's 2 tensors, first weight$"):
        load_weights(torch.nn.Linear(3, 2), {"weight": "no tensor"}, "x")  # type: ignore[dict-item]


def test_weights_of_another_shape_are_named() -> None:
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(UserError) as refused:
        load_weights(module, {"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, "model.w2v_path=x.pt")
    assert str(refused.value) == ("model.w2v_path=x.pt: weight has shape (2, 4), its configuration asks for (2, 3)")
    assert torch.equal(module.weight, before)
