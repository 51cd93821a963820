"""model.condition_on_students: the layers above a student see what it says."""

import logging

import pytest
import torch

from fairseq_skd.errors import UserError
from tests.builders import batch, write_pretrained
from tests.models.models import LARGE, build, rebuild

SAMPLE = batch([1.2, 0.8], ["GO ON", "A"])["net_input"]


@pytest.fixture(scope="module", params=["hubert", "wavlm", "pre_ln"])
def checkpoint(request, tmp_path_factory):
    kind = "hubert" if request.param == "pre_ln" else request.param
    return write_pretrained(
        tmp_path_factory.mktemp("pretrained") / "w2v.pt", kind, **(LARGE if request.param == "pre_ln" else {})
    )


def conditioned(path, layers, **changes):
    """With conditioners that say something."""
    model = build(path, student_layers=layers, condition_on_students=True, **changes).eval()
    generator = torch.Generator().manual_seed(5)
    for projection in model.conditioners.values():
        projection.weight.data.normal_(generator=generator)
    return model


def test_the_pretrained_encoder_starts_undisturbed(checkpoint):
    plain, fresh = (
        build(checkpoint, student_layers=[2], condition_on_students=on).eval()(**SAMPLE) for on in (False, True)
    )
    assert torch.equal(plain["encoder_out"], fresh["encoder_out"])


def test_layers_above_are_given_the_posteriors(checkpoint):
    """By hand: fairseq's layers one after the other, the projected posteriors added after the second."""
    model = conditioned(checkpoint, [2], blank_weight=1.5)
    source = {"source": SAMPLE["source"][:1, :16000], "padding_mask": None}
    exits = model(**source)["exit_logits"]
    trunk, encoder = model.w2v_encoder, model.w2v_encoder.w2v_model.encoder
    hidden = trunk(**source, taps=[2]).taps[2]
    posteriors = torch.softmax(exits[2].double(), dim=-1).float()
    x = hidden + posteriors @ model.conditioners["2"].weight.T
    shared = {"position_bias": encoder.position_bias(len(x))} if hasattr(encoder, "position_bias") else {}
    for layer in encoder.layers[2:]:
        x, _ = layer(x, need_weights=False, **shared)
    logits = trunk.proj(trunk.final_norm(x) if trunk.final_norm is not None else x)
    logits[..., 0] += 1.5
    torch.testing.assert_close(exits[4], logits, rtol=1e-5, atol=1e-5)
    plain = build(checkpoint, student_layers=[2], blank_weight=1.5).eval()(**source)["exit_logits"]
    assert torch.equal(plain[2], exits[2])  # the student itself is as it was
    assert (plain[4] - exits[4]).abs().max() > 0.01


@pytest.mark.parametrize(("layer", "kept"), [(1, []), (3, ["1"])])
def test_a_student_is_decoded_with_those_below_it(checkpoint, layer, kept):
    model = conditioned(checkpoint, [1, 3])
    expected = model(**SAMPLE)["exit_logits"][layer]
    student = rebuild(model, student_layers=[1, 3], condition_on_students=True, decode_layer=layer)
    assert list(student.conditioners) == kept
    assert list(student.student_heads) == [*kept, str(layer)]
    out = student(**SAMPLE)
    assert list(out["exit_logits"]) == [layer]
    torch.testing.assert_close(out["encoder_out"], expected, rtol=0, atol=1e-6)


def test_the_teachers_loss_trains_the_student_through_it(checkpoint):
    model = conditioned(checkpoint, [2]).train()
    model(**SAMPLE)["exit_logits"][4].sum().backward()
    assert model.conditioners["2"].weight.grad.abs().max() > 0
    assert model.student_heads["2"].proj.weight.grad.abs().max() > 0


def test_what_the_loss_sees_is_what_the_layers_above_see(checkpoint, monkeypatch):
    """One draw of the dropout before the head, not two."""
    model = conditioned(checkpoint, [2], final_dropout=0.5).train()
    heard = []
    projection = model.conditioners["2"]
    projection.register_forward_hook(lambda module, given, result: heard.append(given[0]))
    logits = model(**SAMPLE)["exit_logits"][2]
    (posteriors,) = heard
    torch.testing.assert_close(posteriors[: len(logits)], logits.softmax(dim=-1), rtol=0, atol=0)


def test_heads_alone_still_train(checkpoint):
    model = conditioned(checkpoint, [2], freeze_finetune_updates=5).train()
    sum(logits.sum() for logits in model(**SAMPLE)["exit_logits"].values()).backward()
    assert model.student_heads["2"].proj.weight.grad.abs().max() > 0
    assert model.conditioners["2"].weight.grad is None


def test_a_checkpoint_with_it_is_not_run_without(checkpoint):
    model = conditioned(checkpoint, [1, 2])
    sentence = (
        "layers above 1 were trained to see what its student of 1 layers says: set model.condition_on_students=true"
    )
    for changes in ({"student_layers": [1, 2]}, {"student_layers": [2], "condition_on_students": True}):
        with pytest.raises(UserError, match=sentence):
            rebuild(model, **changes)


def test_without_a_student_it_is_refused(checkpoint):
    with pytest.raises(UserError, match="model.condition_on_students=true does nothing without a student"):
        build(checkpoint, student_layers=[], condition_on_students=True)


def test_a_checkpoint_without_it_starts_a_run(checkpoint, caplog):
    plain = build(checkpoint, student_layers=[2]).eval()
    model = build(checkpoint, student_layers=[2], condition_on_students=True).eval()
    with caplog.at_level(logging.INFO):
        model.load_state_dict({key: value.clone() for key, value in plain.state_dict().items()}, strict=True)
    assert "no head" not in caplog.text
    assert torch.equal(plain(**SAMPLE)["encoder_out"], model(**SAMPLE)["encoder_out"])
