"""The model: exits, self-contained configuration, checkpoints in and out, decoding at a student's depth."""

import logging

import pytest
import torch
from fairseq.nan_detector import NanDetector

from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc
from tests.builders import CtcTask, batch, model_config, write_pretrained

LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm"}
SAMPLE = batch([1.2, 0.8], ["GO ON", "A"])


@pytest.fixture(scope="module", params=["hubert", "wav2vec2", "wavlm", "pre_ln", "pre_ln_wavlm"])
def checkpoint(request, tmp_path_factory):
    changes = LARGE if request.param.startswith("pre_ln") else {}
    kind = {"pre_ln": "hubert", "pre_ln_wavlm": "wavlm"}.get(request.param, request.param)
    return write_pretrained(tmp_path_factory.mktemp("pretrained") / "w2v.pt", kind, **changes)


def build(path, **changes) -> SkdCtc:
    torch.manual_seed(1)
    return SkdCtc.build_model(model_config(path, **changes), CtcTask())


def rebuild(model: SkdCtc, **changes) -> SkdCtc:
    """A model of a saved checkpoint: the pretrained file is not there, only its architecture."""
    config = model_config("/gone.pt", w2v_args=model.cfg.w2v_args, **changes)
    fresh = SkdCtc.build_model(config, CtcTask())
    fresh.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, strict=True)
    return fresh.eval()


def test_pretrained_weights_arrive(checkpoint):
    weights = torch.load(checkpoint, weights_only=False)["model"]
    own = build(checkpoint).w2v_encoder.w2v_model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in own.items())
    blank = build(checkpoint, no_pretrained_weights=True).w2v_encoder.w2v_model.state_dict()
    name = "encoder.layers.0.fc1.weight"
    assert not torch.equal(weights[name], blank[name])


def test_heads_and_names(checkpoint):
    model = build(checkpoint, student_layers=[1, 3])
    assert model.exits == (4, 1, 3)
    names = [name for name, _ in model.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"w2v_encoder", "student_heads"}
    assert {"w2v_encoder.proj.weight", "student_heads.1.proj.weight", "student_heads.3.proj.bias"} <= set(names)
    # transformers' converter takes any name that contains this string for the one CTC head
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
def test_impossible_students(checkpoint, layers, sentence):
    with pytest.raises(UserError, match=sentence):
        build(checkpoint, student_layers=layers)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"normalize": True}, "set task.normalize=false"),
        ({"decode_layer": 2}, "model.decode_layer=2 is for decoding"),
        ({"load_ema": True}, "model.load_ema=True belongs to another model"),
        ({"layer_decay": 0.5}, "skd_ctc can only have layer_decay=1"),
        ({"blank_mode": "mul"}, "choose add or set"),
        ({"layer_type": "trf_adp"}, "skd_ctc builds no adapters"),
        ({"mask_prob": 1.5}, "model.mask_prob=1.5 is not a probability"),
        ({"blank_weight": float("inf")}, "model.blank_weight=inf is not a finite number"),
    ],
)
def test_refusals(checkpoint, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        build(checkpoint, **changes)


def test_other_sampling_rate(checkpoint):
    task = CtcTask()
    task.cfg.sample_rate = 8000
    with pytest.raises(UserError, match="task.sample_rate=8000 but the encoder was pretrained at 16000"):
        SkdCtc.build_model(model_config(checkpoint), task)


def test_the_saved_configuration_is_self_contained(checkpoint):
    config = model_config(checkpoint)
    SkdCtc.build_model(config, CtcTask())
    saved = config._get_parent().model
    assert saved.w2v_args.model.encoder_layers == 4
    assert set(saved.w2v_args.task) == {"normalize", "sample_rate"}  # no data, no dictionary of the pretraining task


@pytest.mark.parametrize("layer", [1, 3])
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
def test_decoding_the_full_model(checkpoint, layer):
    model = build(checkpoint).eval()
    full = rebuild(model, decode_layer=layer)
    expected = model(**SAMPLE["net_input"])["encoder_out"]
    torch.testing.assert_close(full(**SAMPLE["net_input"])["encoder_out"], expected, rtol=0, atol=0)


def test_decode_layer_without_an_exit(checkpoint):
    model = build(checkpoint, student_layers=[1, 2])
    with pytest.raises(UserError, match=r"no exit there; take 0 for the full model of 4 layers.*\(1 or 2\)"):
        rebuild(model, student_layers=[1, 2], decode_layer=3)
    plain = build(checkpoint, student_layers=[])
    with pytest.raises(UserError, match="it was trained without a student"):
        rebuild(plain, student_layers=[], decode_layer=2)


def test_padded_frames_are_blank_with_certainty(checkpoint):
    model = build(checkpoint).eval()
    out = model(**SAMPLE["net_input"])
    before = out["encoder_out"].clone()
    posteriors = model.get_normalized_probs(out, log_probs=False)
    assert out["frame_lengths"].tolist() == [59, 39]
    assert torch.equal(posteriors[39:, 1, 0], torch.ones(20))
    assert posteriors[39:, 1, 1:].max() == 0
    torch.testing.assert_close(posteriors[:39], before[:39].softmax(-1))
    assert torch.equal(out["encoder_out"], before), "get_logits must not write into the model's output"


def test_a_stock_fine_tuned_checkpoint_starts_a_run(checkpoint, caplog):
    stock = build(checkpoint, student_layers=[]).state_dict()  # fairseq's names, no students
    assert all(name.startswith(("w2v_encoder.w2v_model.", "w2v_encoder.proj.")) for name in stock)
    model = build(checkpoint, student_layers=[2, 3])
    stock = {name: tensor + 1 for name, tensor in stock.items()}
    fresh = model.student_heads["2"].proj.weight.clone()
    with caplog.at_level(logging.INFO):
        model.load_state_dict(dict(stock), strict=True)
    assert "no head for student layers 2, 3: they start fresh" in caplog.text
    assert torch.equal(model.w2v_encoder.proj.weight, stock["w2v_encoder.proj.weight"])
    assert torch.equal(model.student_heads["2"].proj.weight, fresh)
    if model.w2v_encoder.final_norm is not None:
        final = stock["w2v_encoder.w2v_model.encoder.layer_norm.weight"]
        assert torch.equal(model.student_heads["3"].layer_norm.weight, final)


def test_a_fine_tuned_checkpoint_is_not_pruned(checkpoint):
    deep = build(checkpoint, student_layers=[2]).state_dict()
    with pytest.raises(
        UserError, match=r"^the fine-tuned checkpoint has 4 layers, the model 3: model\.keep_layers prunes"
    ):
        build(checkpoint, student_layers=[2], keep_layers=3).load_state_dict(dict(deep), strict=True)


def test_heads_alone_train_first(checkpoint):
    model = build(checkpoint, freeze_finetune_updates=3).train()
    for updates, expected in ((2, False), (3, True)):
        model.zero_grad()
        model.set_num_updates(updates)
        logits = model(**SAMPLE["net_input"])["exit_logits"]
        sum(out.sum() for out in logits.values()).backward()
        trunk = model.w2v_encoder.w2v_model.encoder.layers[0].fc1.weight.grad
        assert (trunk is not None and bool(trunk.abs().sum() > 0)) is expected
        assert model.w2v_encoder.proj.weight.grad.abs().sum() > 0
        assert all(parameter.grad is not None for parameter in model.student_heads.parameters())


def test_freeze_regex(checkpoint):
    model = build(checkpoint, freeze_regex=r"w2v_model\.encoder\.layers\.[01]\..*")
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all("encoder.layers.0." in name or "encoder.layers.1." in name for name in frozen)


@pytest.mark.parametrize(("mode", "expected"), [("add", 1.5), ("set", None)])
def test_blank_weight(checkpoint, mode, expected):
    plain = build(checkpoint).eval()(**SAMPLE["net_input"])["exit_logits"]
    weighed = build(checkpoint, blank_weight=1.5, blank_mode=mode).eval()(**SAMPLE["net_input"])["exit_logits"]
    for layer, logits in plain.items():
        torch.testing.assert_close(weighed[layer][..., 1:], logits[..., 1:])
        reference = logits[..., 0] + 1.5 if expected else torch.full_like(logits[..., 0], 1.5)
        torch.testing.assert_close(weighed[layer][..., 0], reference)


MASKED = {"apply_mask": True, "mask_prob": 0.5, "mask_channel_prob": 0.3, "mask_channel_length": 4, "layerdrop": 0.3}


def outputs(model: SkdCtc, updates: int) -> torch.Tensor:
    model.set_num_updates(updates)
    return model(**SAMPLE["net_input"])["encoder_out"].detach()


def test_disturbances_are_keyed_by_seed_update_and_micro_batch(checkpoint, monkeypatch):
    model = build(checkpoint, **MASKED).train()
    first, second = outputs(model, 5), outputs(model, 5)
    third = outputs(model, 6)
    assert not torch.equal(first, second) and not torch.equal(first, third)
    fresh = build(checkpoint, **MASKED).train()  # as after a resume: another process, other global generators
    torch.manual_seed(99)
    assert torch.equal(outputs(fresh, 5), first) and torch.equal(outputs(fresh, 5), second)
    fresh.eval()
    fresh(**SAMPLE["net_input"])  # validation draws nothing
    fresh.train()
    assert torch.equal(outputs(fresh, 6), third)
    assert not torch.equal(outputs(build(checkpoint, seed=2, **MASKED).train(), 5), first)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr("fairseq.distributed.utils.get_data_parallel_rank", lambda: 1)
    assert not torch.equal(outputs(build(checkpoint, **MASKED).train(), 5), first)


def test_no_mask_in_evaluation(checkpoint):
    model = build(checkpoint, **MASKED).eval()
    assert torch.equal(outputs(model, 1), outputs(model, 2))


def test_checkpointed_activations_give_the_same_gradients(checkpoint):
    gradients = []
    for checkpointed in (False, True):
        model = build(checkpoint, checkpoint_activations=checkpointed).train()
        model(**SAMPLE["net_input"])["encoder_out"].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == len(gradients[1]) > 10
    largest = max(gradient.abs().max().item() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        # A key's bias moves all scores of a query alike: its gradient is zero, and what is found is rounding.
        atol = torch.finfo(torch.float32).eps * largest
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=atol, msg=name)


def test_bfloat16(checkpoint):
    model = build(checkpoint, **MASKED).train().bfloat16()
    net_input = {**SAMPLE["net_input"], "source": SAMPLE["net_input"]["source"].bfloat16()}
    out = model(**net_input)
    assert out["encoder_out"].dtype == torch.bfloat16
    assert model.get_normalized_probs(out, log_probs=True).dtype == torch.float32
    out["encoder_out"].float().sum().backward()


def test_fairseq_finds_where_a_gradient_is_not_finite(checkpoint, caplog):
    model = build(checkpoint).train()
    with torch.no_grad():
        model.student_heads["2"].proj.weight.fill_(torch.nan)
    with caplog.at_level(logging.WARNING, "fairseq.nan_detector"), NanDetector(model):
        logits = model(**SAMPLE["net_input"])["exit_logits"]
        sum(exit_logits.sum() for exit_logits in logits.values()).backward()
    assert "NaN detected in output of student_heads.2.proj" in caplog.text
    assert "backward" in caplog.text
