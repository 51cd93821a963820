"""WavLM: buckets, bias and gate against references; the bias under LayerDrop and frozen updates."""

import numpy as np
import pytest
import torch

from fairseq_skd.encoders import wavlm
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.trunk import Regularisation, Trunk
from fairseq_skd.encoders.wavlm import RelativeAttention, relative_buckets
from fairseq_skd.models import SkdCtc
from tests.builders import BUCKETS, CtcTask, architecture, batch, model_config, pretrained_model, write_pretrained

LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm"}


def build(layers: int = 4, regularisation: Regularisation | None = None, **changes) -> Trunk:
    pretrained = PretrainedEncoder("wavlm", architecture(**{**BUCKETS, **changes}), normalize=False)
    trunk = Trunk(pretrained, layers, {}, regularisation or Regularisation())
    weights = pretrained_model("wavlm", **changes).state_dict()
    trunk.w2v_model.load_state_dict({name: weights[name] for name in trunk.w2v_model.state_dict()})
    return trunk.eval()


# ---- the buckets


def exact_bucket(distance: int, num_buckets: int, max_distance: int) -> int:
    """Compute in integers: edge k is at exact * (max_distance / exact) ** (k / exact)."""
    exact = num_buckets // 4
    far = abs(distance)
    bucket = far
    if far >= exact:
        passed = 0
        while passed < exact - 1 and far**exact * exact ** (passed + 1) >= max_distance ** (passed + 1) * exact**exact:
            passed += 1
        bucket = exact + passed
    return bucket + (num_buckets // 2 if distance > 0 else 0)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(320, 800), (32, 128), (32, 40), (4, 2), (8, 3)])
@pytest.mark.slow
def test_buckets_equal_integer_arithmetic(num_buckets, max_distance):
    distances = np.arange(-1499, 1500)
    expected = [exact_bucket(int(distance), num_buckets, max_distance) for distance in distances]
    assert relative_buckets(1500, num_buckets, max_distance).tolist() == expected


def test_buckets_by_hand():
    # 16 buckets, 8 per side: 4 of one distance each, then edges at 4 * 16 ** (k / 4) = 4, 8, 16, 32
    expected = {0: 0, -3: 3, -4: 4, -7: 4, -8: 5, -15: 5, -16: 6, -31: 6, -32: 7, -99: 7, 1: 9, 3: 11, 8: 13, 99: 15}
    buckets = relative_buckets(100, 16, 64)
    assert {distance: int(buckets[distance + 99]) for distance in expected} == expected


@pytest.mark.parametrize("frames", [1, 2, 7, 60])
def test_bias_of_query_and_key(frames):
    encoder = build().w2v_model.encoder
    bias = encoder.position_bias(frames)
    table = encoder.layers[0].self_attn.relative_attention_bias.weight
    assert bias.shape == (4, frames, frames)
    for query in range(frames):
        for key in range(frames):
            assert torch.equal(bias[:, query, key], table[exact_bucket(key - query, 32, 40)])


# ---- the attention


def reference_attention(
    attention: RelativeAttention, x: np.ndarray, lengths: list[int], bias: np.ndarray
) -> np.ndarray:
    """Attend in float64, one head and query at a time, with the gate as in the paper."""
    parameters = {name: parameter.detach().double().numpy() for name, parameter in attention.named_parameters()}
    frames, batch_size, width = x.shape
    size = width // attention.num_heads

    def linear(name: str, value: np.ndarray) -> np.ndarray:
        return value @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]

    context = np.zeros_like(x)
    for b in range(batch_size):
        q, k, v = (linear(f"{name}_proj", x[:, b]) for name in "qkv")
        for head in range(attention.num_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(frames):
                row = bias[head, i]
                if attention.gated:
                    units = linear("grep_linear", x[i, b, part])
                    update, reset = 1 / (1 + np.exp(units[:4].sum())), 1 / (1 + np.exp(-units[4:].sum()))
                    scale = parameters["grep_a"][0, head, 0, 0]
                    row = row + update * row + (1 - update) * scale * reset * row
                scores = (k[: lengths[b], part] @ q[i, part]) / np.sqrt(size) + row[: lengths[b]]
                weights = np.exp(scores - scores.max())
                context[i, b, part] = (weights / weights.sum()) @ v[: lengths[b], part]
    return linear("out_proj", context)


def attention_case(gated: bool = True, dropout: float = 0.0):
    """Make a random attention, input (T, B, C), a padding mask of 9 and 4 frames, and a bias."""
    torch.manual_seed(5)
    attention = RelativeAttention(16, 2, dropout, gated).eval()
    for parameter in attention.parameters():
        parameter.data = torch.randn_like(parameter) * (0.5 if parameter.dim() == 2 else 1)
    padding = torch.arange(9) >= torch.tensor([[9], [4]])
    return attention, torch.randn(9, 2, 16), padding, torch.randn(2, 9, 9)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("lengths", [[9, 4], [9, 9]])
def test_attention_equals_float64(gated, lengths):
    attention, x, padding, bias = attention_case(gated)
    found, _ = attention(x, key_padding_mask=(padding if lengths[1] < 9 else None, bias))
    expected = reference_attention(attention, x.double().numpy(), lengths, bias.double().numpy())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_in_half_precision(dtype):
    attention, x, padding, bias = attention_case()
    expected, _ = attention(x, key_padding_mask=(padding, bias))
    found, _ = attention.to(dtype)(x.to(dtype), key_padding_mask=(padding, bias.to(dtype)))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


@pytest.mark.slow
def test_attention_dropout_only_in_training():
    attention, x, padding, bias = attention_case(dropout=0.5)
    plain = attention_case()[0](x, key_padding_mask=(padding, bias))[0]
    assert torch.equal(attention(x, key_padding_mask=(padding, bias))[0], plain)
    torch.manual_seed(0)
    draws = [attention.train()(x, key_padding_mask=(padding, bias))[0] for _ in range(1500)]
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(torch.stack(draws).mean(0), plain, rtol=0, atol=0.1 * float(plain.abs().max()))


# ---- the encoder


class Numbers:
    """A generator that returns the given numbers, for LayerDrop."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = iter(numbers)

    def random(self) -> float:
        return next(self.numbers)


@pytest.mark.parametrize("changes", [{}, LARGE], ids=["post_ln", "pre_ln"])
@pytest.mark.parametrize("dropped", [(0,), (0, 2), (1,), ()])
@pytest.mark.slow
def test_other_layers_get_the_bias_if_a_layer_is_dropped(changes, dropped):
    trunk = build(regularisation=Regularisation(layerdrop=0.5), **changes)
    encoder, states = trunk.w2v_model.encoder, {}
    encoder.layers[0].register_forward_pre_hook(lambda _, args: states.update(first=args[0]))
    source = batch([1.02], ["A"])["net_input"]["source"]
    trunk(source, None, [1])
    x = states["first"]  # an even number of frames, without padding
    bias = encoder.position_bias(len(x))
    found = trunk(source, None, range(1, 5), Numbers(*(0.1 if i in dropped else 0.9 for i in range(4)))).taps
    for i, layer in enumerate(encoder.layers):
        if i not in dropped:
            x = layer(x, position_bias=bias)[0]
        torch.testing.assert_close(found[i + 1], x)


def test_the_bias_changes_the_output(monkeypatch):
    source = batch([1.0], ["A"])["net_input"]["source"]
    trunk = build()
    before = trunk(source, None, [4]).taps[4]
    monkeypatch.setattr(
        type(trunk.w2v_model.encoder), "position_bias", lambda _, frames: torch.zeros(4, frames, frames)
    )
    assert (trunk(source, None, [4]).taps[4] - before).abs().max() > 0.1


@pytest.mark.parametrize("settings", [{}, {"layerdrop": 0.9}, {"freeze_finetune_updates": 5}])
@pytest.mark.slow
def test_buckets_are_computed_once_per_forward_pass(tmp_path, monkeypatch, settings):
    path = write_pretrained(tmp_path / "wavlm.pt", "wavlm")
    model = SkdCtc.build_model(model_config(path, **settings), CtcTask()).train()
    calls = []

    def counted(*args):
        calls.append(args)
        return relative_buckets(*args)

    monkeypatch.setattr(wavlm, "relative_buckets", counted)
    for update in range(3):
        model.set_num_updates(update)
        out = model(**batch([1.2, 0.8], ["GO ON", "A"])["net_input"])
        assert len(calls) == update + 1
    out["encoder_out"].sum().backward()
    table = model.w2v_encoder.w2v_model.encoder.layers[0].self_attn.relative_attention_bias.weight
    if "layerdrop" not in settings:
        assert (table.grad is None) == ("freeze_finetune_updates" in settings)


def test_an_utterance_gives_the_same_alone_and_padded():
    trunk = build()
    sample = batch([3.0, 1.0], ["A", "B"])["net_input"]
    padded = trunk(**sample, taps=[2, 4])
    alone = trunk(sample["source"][1:, :16000], None, [2, 4])
    assert padded.frame_lengths.tolist() == [149, 49]
    for layer in (2, 4):
        torch.testing.assert_close(padded.taps[layer][:49, 1], alone.taps[layer][:, 0], rtol=0, atol=1e-5)


def test_bfloat16_stays_close_to_float32():
    trunk = build()
    sample = batch([1.2, 0.8], ["A", "B"])["net_input"]
    expected = trunk(**sample, taps=[4])
    # On CPUs with bfloat16 instructions, torch 2.13's grouped convolution is wrong at 8 channels
    # per group, which only a toy encoder has.
    with torch.backends.mkldnn.flags(enabled=False):
        found = trunk.bfloat16()(sample["source"].bfloat16(), sample["padding_mask"], [4]).taps[4]
    assert found.dtype == torch.bfloat16
    real = ~expected.padding_mask.T
    difference = (found.float() - expected.taps[4])[real]
    assert difference.square().mean().sqrt() < 0.05 * expected.taps[4][real].std()
