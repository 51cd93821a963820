"""The trunk against fairseq's encoders with the same weights, and fairseq's bugs that it avoids."""

import numpy as np
import pytest
import torch

from fairseq_skd.encoders.masking import SpanMask
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.trunk import Regularisation, Trunk
from tests.builders import architecture, batch, pretrained_model

KINDS = ("hubert", "wav2vec2")
LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm"}


def build(kind: str, regularisation: Regularisation | None = None, layers: int = 4, **changes) -> Trunk:
    pretrained = PretrainedEncoder(kind, architecture(**changes), normalize=False)
    trunk = Trunk(pretrained, layers, {}, regularisation or Regularisation())
    weights = pretrained_model(kind, **changes).state_dict()
    wanted = trunk.w2v_model.state_dict()
    trunk.w2v_model.load_state_dict({name: weights[name] for name in wanted})
    return trunk.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{}, LARGE], ids=["post_ln", "pre_ln"])
@pytest.mark.parametrize("seconds", [1.0, 1.02], ids=["odd_frames", "even_frames"])
@pytest.mark.slow
def test_taps_equal_fairseq_layers(kind, changes, seconds):
    source = batch([seconds], ["A"])["net_input"]["source"]
    taps = build(kind, **changes)(source, None, [1, 2, 3, 4]).taps
    reference = pretrained_model(kind, **changes)
    for layer in (1, 2, 3):
        if kind == "hubert":
            expected, _ = reference.extract_features(source, output_layer=layer)
        else:
            expected = reference.extract_features(source, None, layer=layer - 1)["x"]
        torch.testing.assert_close(taps[layer].transpose(0, 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extractor", ["default", "layer_norm"])
@pytest.mark.slow
def test_padded_batch_equals_fairseq_wav2vec2(kind, extractor):
    """Real frames of a padded batch equal fairseq's wav2vec 2.0, for HuBERT too.

    fairseq's HuBERT counts one frame too many. fairseq's group norm includes padding; with it, each
    utterance is compared with fairseq's output for the utterance alone.
    """
    net_input = batch([1.5, 1.0], ["A", "B"])["net_input"]
    out = build(kind, extractor_mode=extractor)(**net_input, taps=[2])
    reference = pretrained_model("wav2vec2", extractor_mode=extractor)
    if kind == "hubert":
        weights = pretrained_model("hubert", extractor_mode=extractor).state_dict()
        reference.load_state_dict(
            {**reference.state_dict(), **{k: weights[k] for k in reference.state_dict() if k in weights}}
        )
    together = reference.extract_features(**net_input, layer=1)
    assert out.frame_lengths.tolist() == (~together["padding_mask"]).sum(-1).tolist() == [74, 49]
    for i, (samples, frames) in enumerate([(24000, 74), (16000, 49)]):
        if extractor == "default":
            expected = reference.extract_features(net_input["source"][i : i + 1, :samples], None, layer=1)["x"][0]
        else:
            expected = together["x"][i, :frames]
        torch.testing.assert_close(out.taps[2][:frames, i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_has_the_same_frames_alone_and_padded(kind):
    trunk = build(kind)
    sample = batch([10.0, 1.0], ["A", "B"])["net_input"]
    padded = trunk(**sample, taps=[2, 4])
    alone = trunk(sample["source"][1:, :16000], None, [2, 4])
    assert padded.frame_lengths.tolist() == [499, 49]
    assert alone.frame_lengths.tolist() == [49]
    assert alone.padding_mask is None
    for layer in (2, 4):
        torch.testing.assert_close(padded.taps[layer][:49, 1], alone.taps[layer][:, 0], rtol=0, atol=1e-5)


class Step(torch.nn.Module):
    """A layer that adds a power of two, so that the sum tells which layers ran."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value, self.calls = value, 0

    def forward(self, x, self_attn_padding_mask=None, need_weights=False):
        self.calls += 1
        return x + self.value, (None, None)


def test_taps_under_layerdrop():
    trunk = build("hubert", Regularisation(layerdrop=0.5))
    steps = torch.nn.ModuleList(Step(2**i) for i in range(4))
    source = batch([1.0], ["A"])["net_input"]["source"]
    base = None
    trunk.w2v_model.encoder.layers = steps
    seen = set()
    for seed in range(40):
        for step in steps:
            step.calls = 0
        taps = trunk(source, None, [1, 2, 3, 4], np.random.default_rng(seed)).taps
        ran = [step.calls for step in steps]
        assert max(ran) <= 1, "a layer ran twice"
        base = taps[1] - ran[0] if base is None else base
        for layer in range(1, 5):
            expected = sum(2**i for i in range(layer) if ran[i])
            torch.testing.assert_close(taps[layer], base + expected, rtol=0, atol=1e-4)
        seen.add(tuple(ran))
    assert len(seen) > 8


def test_layers_above_the_deepest_tap_do_not_run():
    trunk = build("hubert")
    trunk.w2v_model.encoder.layers = torch.nn.ModuleList(Step(1) for _ in range(4))
    trunk(batch([1.0], ["A"])["net_input"]["source"], None, [2])
    assert [step.calls for step in trunk.w2v_model.encoder.layers] == [1, 1, 0, 0]


@pytest.mark.parametrize("channel_first", [False, True])
def test_masks_reach_the_features(channel_first):
    """Masked frames become the mask embedding, masked channels zero. The later mask wins."""
    masks = Regularisation(time=SpanMask(0.5, 5, min_spans=2), channel=SpanMask(0.3, 4), channel_first=channel_first)
    trunk = build("wav2vec2", masks)
    x = torch.randn(2, 49, 32)
    masked = trunk._mask(x.clone(), torch.tensor([49, 30]), np.random.default_rng(3))
    rng = np.random.default_rng(3)
    time = torch.from_numpy(masks.time.draw([49, 30], 49, rng)).unsqueeze(2)
    channel = torch.from_numpy(masks.channel.draw([32, 32], 32, rng)).unsqueeze(1)
    assert time.any() and channel.any() and not time[1, 30:].any()
    embedding = trunk.w2v_model.mask_emb.detach()
    if channel_first:
        expected = torch.where(time, embedding, torch.where(channel, torch.zeros(()), x))
    else:
        expected = torch.where(channel, torch.zeros(()), torch.where(time, embedding, x))
    torch.testing.assert_close(masked.detach(), expected)


@pytest.mark.parametrize("mult", [0.0, 0.1, 1.0])
def test_feature_grad_mult(mult):
    trunk = build("hubert")
    trunk.feature_grad_mult = mult
    source = batch([1.0], ["A"])["net_input"]["source"]
    trunk(source, None, [1]).taps[1].square().sum().backward()
    weight = trunk.w2v_model.feature_extractor.conv_layers[0][0].weight
    if mult == 0:
        assert weight.grad is None
        return
    scaled, weight.grad = weight.grad.clone(), None
    trunk.feature_grad_mult = 1.0
    trunk(source, None, [1]).taps[1].square().sum().backward()
    torch.testing.assert_close(scaled, mult * weight.grad)


def test_crop_seq_to_multiple():
    trunk = build("wav2vec2", crop_seq_to_multiple=4)
    out = trunk(**batch([1.0, 0.5], ["A", "B"])["net_input"], taps=[1])
    assert out.taps[1].shape[0] == 48
    assert out.frame_lengths.tolist() == [48, 24]
