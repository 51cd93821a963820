"""The model: exits, saved configuration, loading checkpoints, decoding at a student's depth."""

import logging

import pytest
import torch

from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc
from tests.builders import CtcTask, batch, model_config, write_pretrained
from tests.models.models import LARGE, build, rebuild

SAMPLE = batch([1.2, 0.8], ["GO ON", "A"])


@pytest.mark.slow
def test_pretrained_weights_are_loaded(checkpoint):
    weights = torch.load(checkpoint, weights_only=False)["model"]
    own = build(checkpoint).w2v_encoder.w2v_model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in own.items())
    blank = build(checkpoint, no_pretrained_weights=True).w2v_encoder.w2v_model.state_dict()
    name = "encoder.layers.0.fc1.weight"
    assert not torch.equal(weights[name], blank[name])


@pytest.mark.slow
def test_heads_and_names(checkpoint):
    model = build(checkpoint, student_layers=[1, 3])
    assert model.exits == (4, 1, 3)
    names = [name for name, _ in model.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"w2v_encoder", "student_heads"}
    assert {"w2v_encoder.proj.weight", "student_heads.1.proj.weight", "student_heads.3.proj.bias"} <= set(names)
    # transformers' converter loads every name that contains this string as the CTC head.
    assert [name for name in names if "w2v_encoder.proj" in name] == [
        "w2v_encoder.proj.weight",
        "w2v_encoder.proj.bias",
    ]
    out = model.eval()(**SAMPLE["net_input"])
    assert out["encoder_out"] is out["exit_logits"][4]
    assert {layer: tuple(logits.shape) for layer, logits in out["exit_logits"].items()} == dict.fromkeys(
        (4, 1, 3), (59, 2, 32)
    )


def test_student_of_a_pre_ln_encoder_starts_from_the_final_norm(tmp_path):
    model = build(write_pretrained(tmp_path / "w2v.pt", **LARGE))
    final = model.w2v_encoder.w2v_model.encoder.layer_norm
    own = model.student_heads["2"].layer_norm
    assert own is not final
    assert torch.equal(own.weight, final.weight) and torch.equal(own.bias, final.bias)
    model.eval()
    taps = model.w2v_encoder(**SAMPLE["net_input"], taps=[2, 4]).taps
    out = model(**SAMPLE["net_input"])["exit_logits"]
    head = model.w2v_encoder.get_submodule("proj")
    torch.testing.assert_close(out[4], head(final(taps[4])))
    torch.testing.assert_close(out[2], model.student_heads["2"].proj(own(taps[2])))


def test_plain_ctc_has_no_student(checkpoint):
    model = build(checkpoint, student_layers=[])
    assert model.exits == (4,) and not list(model.student_heads.parameters())


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([0], "there is no student of 0 layers; students of this 4-layer encoder have 1 to 3 layers"),
        ([5], "there is no student of 5 layers"),
        ([-1], "there is no student of -1 layers"),
        ([4], "4 layers are the full model itself"),
        ([2, 2], "names a layer twice"),
    ],
)
@pytest.mark.slow
def test_impossible_students(checkpoint, layers, sentence):
    with pytest.raises(UserError, match=sentence):
        build(checkpoint, student_layers=layers)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"normalize": True}, "set task.normalize=false"),
        ({"decode_layer": 2}, "model.decode_layer=2 is for decoding only: set it to 0 to train"),
        ({"load_ema": True}, "model.load_ema=True has no meaning for skd_ctc: set model.load_ema=False"),
        ({"layer_decay": 0.5}, "set model.layer_decay=1"),
        ({"blank_mode": "mul"}, "choose add or set"),
        ({"layer_type": "trf_adp"}, "model.layer_type=trf_adp is not supported"),
        ({"mask_prob": 1.5}, "model.mask_prob=1.5 is out of range: it has to be at least 0 and at most 1"),
        ({"blank_weight": float("inf")}, "model.blank_weight=inf is out of range: it has to be finite"),
    ],
)
@pytest.mark.slow
def test_refusals(checkpoint, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        build(checkpoint, **changes)


def test_other_sampling_rate(checkpoint):
    task = CtcTask()
    task.cfg.sample_rate = 8000
    with pytest.raises(UserError, match="task.sample_rate=8000 but the encoder was pretrained at 16000 Hz: resample"):
        SkdCtc.build_model(model_config(checkpoint), task)


def test_the_saved_configuration_is_self_contained(checkpoint):
    config = model_config(checkpoint)
    SkdCtc.build_model(config, CtcTask())
    saved = config._get_parent().model
    assert saved.w2v_args.model.encoder_layers == 4
    assert set(saved.w2v_args.task) == {"normalize", "sample_rate"}  # no data or dictionary of pretraining


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.slow
def test_decode_layer_equals_the_tap(checkpoint, layer):
    model = build(checkpoint, student_layers=[3, 1]).eval()
    expected = model(**SAMPLE["net_input"])["exit_logits"][layer]
    student = rebuild(model, student_layers=[3, 1], decode_layer=layer)
    assert student.exits == (layer,)
    out = student(**SAMPLE["net_input"])
    torch.testing.assert_close(out["encoder_out"], expected, rtol=0, atol=1e-6)
    assert len(student.w2v_encoder.w2v_model.encoder.layers) == layer
    assert student.w2v_encoder.proj is None
    assert [name for name in student.state_dict() if name.startswith("student_heads")] == [
        name for name in model.state_dict() if name.startswith(f"student_heads.{layer}.")
    ]


@pytest.mark.parametrize("layer", [0, 4])
@pytest.mark.slow
def test_decoding_the_full_model(checkpoint, layer):
    model = build(checkpoint).eval()
    full = rebuild(model, decode_layer=layer)
    expected = model(**SAMPLE["net_input"])["encoder_out"]
    torch.testing.assert_close(full(**SAMPLE["net_input"])["encoder_out"], expected, rtol=0, atol=0)


@pytest.mark.slow
def test_decode_layer_without_an_exit(checkpoint):
    model = build(checkpoint, student_layers=[1, 2])
    with pytest.raises(UserError, match=r"no exit at layer 3: use 0 for the full model of 4 layers.*\(1 or 2\)"):
        rebuild(model, student_layers=[1, 2], decode_layer=3)
    plain = build(checkpoint, student_layers=[])
    with pytest.raises(UserError, match="it was trained without a student"):
        rebuild(plain, student_layers=[], decode_layer=2)


def test_padded_frames_have_a_blank_posterior_of_1(checkpoint):
    model = build(checkpoint).eval()
    out = model(**SAMPLE["net_input"])
    before = out["encoder_out"].clone()
    posteriors = model.get_normalized_probs(out, log_probs=False)
    assert out["frame_lengths"].tolist() == [59, 39]
    assert torch.equal(posteriors[39:, 1, 0], torch.ones(20))
    assert posteriors[39:, 1, 1:].max() == 0
    torch.testing.assert_close(posteriors[:39], before[:39].softmax(-1))
    assert torch.equal(out["encoder_out"], before), "get_logits must not write into the model's output"


@pytest.mark.slow
def test_a_stock_fine_tuned_checkpoint_starts_a_run(checkpoint, caplog):
    stock = build(checkpoint, student_layers=[]).state_dict()  # fairseq's names, no students
    assert all(name.startswith(("w2v_encoder.w2v_model.", "w2v_encoder.proj.")) for name in stock)
    model = build(checkpoint, student_layers=[2, 3])
    stock = {name: tensor + 1 for name, tensor in stock.items()}
    fresh = model.student_heads["2"].proj.weight.clone()
    with caplog.at_level(logging.INFO):
        model.load_state_dict(dict(stock), strict=True)
    assert "no head for student layers 2, 3: they start untrained" in caplog.text
    assert torch.equal(model.w2v_encoder.proj.weight, stock["w2v_encoder.proj.weight"])
    assert torch.equal(model.student_heads["2"].proj.weight, fresh)
    if model.w2v_encoder.final_norm is not None:
        final = stock["w2v_encoder.w2v_model.encoder.layer_norm.weight"]
        assert torch.equal(model.student_heads["3"].layer_norm.weight, final)


@pytest.mark.slow
def test_a_pruned_model_starts_from_a_deeper_checkpoint(checkpoint):
    deep = build(checkpoint, student_layers=[2]).state_dict()
    pruned = build(checkpoint, student_layers=[2], keep_layers=3)
    fresh = pruned.state_dict()["w2v_encoder.proj.weight"].clone()
    pruned.load_state_dict(dict(deep), strict=True)
    state = pruned.state_dict()
    assert torch.equal(state.pop("w2v_encoder.proj.weight"), fresh)  # no student of three layers
    del state["w2v_encoder.proj.bias"]
    for name, tensor in state.items():
        assert torch.equal(tensor, deep[name]), name


@pytest.mark.parametrize(("mode", "expected"), [("add", 1.5), ("set", None)])
@pytest.mark.slow
def test_blank_weight(checkpoint, mode, expected):
    plain = build(checkpoint).eval()(**SAMPLE["net_input"])["exit_logits"]
    weighed = build(checkpoint, blank_weight=1.5, blank_mode=mode).eval()(**SAMPLE["net_input"])["exit_logits"]
    for layer, logits in plain.items():
        torch.testing.assert_close(weighed[layer][..., 1:], logits[..., 1:])
        reference = logits[..., 0] + 1.5 if expected else torch.full_like(logits[..., 0], 1.5)
        torch.testing.assert_close(weighed[layer][..., 0], reference)
