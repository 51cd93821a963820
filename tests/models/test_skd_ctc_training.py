"""The model in training: frozen parameters, masks and LayerDrop and their seeds, gradients."""

import logging

import pytest
import torch
from fairseq.nan_detector import NanDetector

from fairseq_skd.models import SkdCtc
from tests.builders import batch
from tests.models.models import build

SAMPLE = batch([1.2, 0.8], ["GO ON", "A"])


@pytest.mark.slow
def test_only_the_heads_train_at_first(checkpoint):
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


@pytest.mark.slow
def test_freeze_regex(checkpoint):
    model = build(checkpoint, freeze_regex=r"w2v_model\.encoder\.layers\.[01]\..*")
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all("encoder.layers.0." in name or "encoder.layers.1." in name for name in frozen)


MASKED = {"apply_mask": True, "mask_prob": 0.5, "mask_channel_prob": 0.3, "mask_channel_length": 4, "layerdrop": 0.3}


def outputs(model: SkdCtc, updates: int) -> torch.Tensor:
    model.set_num_updates(updates)
    return model(**SAMPLE["net_input"])["encoder_out"].detach()


@pytest.mark.slow
def test_masks_depend_on_seed_update_micro_batch_and_worker(checkpoint, monkeypatch):
    model = build(checkpoint, **MASKED).train()
    first, second = outputs(model, 5), outputs(model, 5)
    third = outputs(model, 6)
    assert not torch.equal(first, second) and not torch.equal(first, third)
    fresh = build(checkpoint, **MASKED).train()  # as in a resumed process, with other global generators
    torch.manual_seed(99)
    assert torch.equal(outputs(fresh, 5), first) and torch.equal(outputs(fresh, 5), second)
    fresh.eval()
    fresh(**SAMPLE["net_input"])  # validation draws nothing
    fresh.train()
    assert torch.equal(outputs(fresh, 6), third)
    assert not torch.equal(outputs(build(checkpoint, seed=2, **MASKED).train(), 5), first)
    second_worker = build(checkpoint, **MASKED).train()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr("fairseq.distributed.utils.get_data_parallel_rank", lambda: 1)
    assert not torch.equal(outputs(second_worker, 5), first)


@pytest.mark.slow
def test_no_mask_in_evaluation(checkpoint):
    model = build(checkpoint, **MASKED).eval()
    assert torch.equal(outputs(model, 1), outputs(model, 2))


@pytest.mark.slow
def test_checkpointed_activations_give_the_same_gradients(checkpoint):
    gradients = []
    for checkpointed in (False, True):
        model = build(checkpoint, checkpoint_activations=checkpointed).train()
        model(**SAMPLE["net_input"])["encoder_out"].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == len(gradients[1]) > 10
    largest = max(gradient.abs().max().item() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        # The key bias shifts all scores of a query equally, so its gradient is zero up to rounding.
        atol = torch.finfo(torch.float32).eps * largest
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=atol, msg=name)


@pytest.mark.slow
def test_bfloat16(checkpoint):
    model = build(checkpoint, **MASKED).train().bfloat16()
    net_input = {**SAMPLE["net_input"], "source": SAMPLE["net_input"]["source"].bfloat16()}
    out = model(**net_input)
    assert out["encoder_out"].dtype == torch.bfloat16
    assert model.get_normalized_probs(out, log_probs=True).dtype == torch.float32
    out["encoder_out"].float().sum().backward()


@pytest.mark.slow
def test_fairseq_finds_where_a_gradient_is_not_finite(checkpoint, caplog):
    model = build(checkpoint).train()
    with torch.no_grad():
        model.student_heads["2"].proj.weight.fill_(torch.nan)
    with caplog.at_level(logging.WARNING, "fairseq.nan_detector"), NanDetector(model):
        logits = model(**SAMPLE["net_input"])["exit_logits"]
        sum(exit_logits.sum() for exit_logits in logits.values()).backward()
    assert "NaN detected in output of student_heads.2.proj" in caplog.text
    assert "backward" in caplog.text
