"""Logits, losses and guide of an utterance do not depend on its neighbours in the batch."""

import copy
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fairseq.models.hubert.hubert import HubertConfig

from fairseq_skd.criterions.teacher import FrozenTeacher
from fairseq_skd.encoders.convolutions import parse_conv_layers
from fairseq_skd.encoders.trunk import extract_features
from fairseq_skd.models import SkdCtc
from fairseq_skd.recognizer import Recognizer
from tests.builders import CONVOLUTIONS, batch, pretrained_model, write_pretrained
from tests.criterions.criterion import criterion
from tests.models.models import LARGE, build, rebuild, trained

KINDS = ("hubert", "wav2vec2", "wavlm")
LAYER_NORM = {"extractor_mode": "layer_norm"}
NORMS = {
    "group_norm": {},
    "layer_norm": LAYER_NORM,
    "pre_ln": LARGE,
    "pre_ln_group_norm": {"layer_norm_first": True},
}
CONFORMER = {**LAYER_NORM, "layer_type": "conformer", "depthwise_conv_kernel_size": 7}
OTHERS = {  # most with a layer-norm extractor, so that the group norm hides no other leak
    "conv_bias": {"conv_bias": True},
    "odd_pos_conv": {"conv_pos": 15},
    "multiple_of_5": {"required_seq_len_multiple": 5},
    "deep_pos_conv": {**LAYER_NORM, "pos_conv_depth": 3},
    "crop_to_multiple": {**LAYER_NORM, "crop_seq_to_multiple": 4},
    "conformer": CONFORMER,
    "conformer_espnet": {**CONFORMER, "attn_type": "espnet"},
    "conformer_group_norm": {**CONFORMER, "extractor_mode": "default"},
}
ALL = [(kind, name) for kind in KINDS for name in NORMS] + [("wav2vec2", name) for name in OTHERS]
if "conv_pos_batch_norm" in HubertConfig.__dataclass_fields__:  # not in all builds of fairseq
    OTHERS["pos_conv_batch_norm"] = {**LAYER_NORM, "conv_pos_batch_norm": True}
    ALL.append(("hubert", "pos_conv_batch_norm"))


def batch_of(seed: int, size: int = 5) -> dict:
    """Make utterances of 5 to 99 frames; about half of them end at the last sample of a frame."""
    rng = random.Random(seed)
    seconds = [rng.choice([rng.uniform(0.11, 2.0), 0.025 + 0.02 * rng.randrange(5, 90)]) for _ in range(size)]
    return batch(seconds, ["A NO"] * size, seed=100 * seed)


def alone(sample: dict, i: int) -> torch.Tensor:
    """The audio of one utterance, (1, samples)."""
    return sample["net_input"]["source"][i : i + 1, : int((~sample["net_input"]["padding_mask"][i]).sum())]


def single(sample: dict, i: int) -> dict:
    """A sample of one utterance."""
    source, units = alone(sample, i), sample["target_lengths"][i : i + 1]
    return {
        "id": sample["id"][i : i + 1],
        "net_input": {"source": source, "padding_mask": torch.zeros_like(source, dtype=torch.bool)},
        "target": sample["target"][i : i + 1, : int(units)],
        "target_lengths": units,
        "ntokens": int(units),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], SkdCtc]:
    folder = tmp_path_factory.mktemp("neighbours")
    return {
        (kind, name): build(
            write_pretrained(folder / f"{kind}_{name}.pt", kind, **{**NORMS, **OTHERS}[name]), normalize=False
        ).eval()
        for kind, name in ALL
    }


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "name"), ALL)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.slow
def test_logits_in_a_batch_equal_logits_alone(models, kind, name, seed):
    model, sample = models[kind, name], batch_of(seed)
    with torch.no_grad():
        together = model(**sample["net_input"])
        for i, frames in enumerate(together["frame_lengths"].tolist()):
            expected = model(source=alone(sample, i), padding_mask=None)
            assert expected["frame_lengths"].tolist() == [frames]
            for layer in (4, 2):
                found = together["exit_logits"][layer][:frames, i]
                torch.testing.assert_close(found, expected["exit_logits"][layer][:, 0], rtol=0, atol=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_constant_offset_costs_no_precision(models, kind):
    """With an offset of 50, the first convolution's variance is below 1e-6 of its squared mean."""
    model, sample = models[kind, "group_norm"], batch_of(4)
    real = ~sample["net_input"]["padding_mask"]
    sample["net_input"]["source"][real] += 50
    with torch.no_grad():
        together = model(**sample["net_input"])
        for i, frames in enumerate(together["frame_lengths"].tolist()):
            expected = model(source=alone(sample, i), padding_mask=None)["encoder_out"][:, 0]
            torch.testing.assert_close(together["encoder_out"][:frames, i], expected, rtol=0, atol=1e-3)


@pytest.mark.faults
def test_group_norm_against_float64():
    """Statistics use exactly the frames of the first convolution whose 10 samples are all real."""
    extractor = pretrained_model("hubert").feature_extractor
    source = batch_of(5)["net_input"]["source"][:3, :8000].clone()
    samples = torch.tensor([8000, 4004, 4005])  # 1599 frames; 799 frames and 4 samples; 800 frames
    with torch.no_grad():
        extractor.conv_layers[0][2].weight.uniform_(0.5, 1.5)
        extractor.conv_layers[0][2].bias.uniform_(-0.5, 0.5)
        extractor.conv_layers = extractor.conv_layers[:1]
        found = extract_features(extractor, source, samples, parse_conv_layers(CONVOLUTIONS)[0], 10)
        double = copy.deepcopy(extractor.conv_layers[0][0]).double()
        for i, frames in enumerate([1599, 799, 800]):
            x = double(source[i : i + 1].double().unsqueeze(1))[0, :, :frames]
            centred = x - x.mean(dim=1, keepdim=True)
            normed = centred / ((centred**2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
            norm = extractor.conv_layers[0][2]
            expected = F.gelu(normed * norm.weight.double()[:, None] + norm.bias.double()[:, None])
            torch.testing.assert_close(found[i, :, :frames].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_float32_statistics(dtype):
    extractor = pretrained_model("hubert").feature_extractor.to(dtype)
    extractor.conv_layers = extractor.conv_layers[:1]
    convolution, _, norm, _ = extractor.conv_layers[0]
    source = batch_of(6)["net_input"]["source"][:2, :8000].to(dtype)
    with torch.no_grad():
        found = extract_features(extractor, source, torch.tensor([8000, 4005]), parse_conv_layers(CONVOLUTIONS)[0], 10)
        x = convolution(source.unsqueeze(1)).double()
        for i, frames in enumerate([1599, 800]):
            weight, bias = norm.weight.double(), norm.bias.double()
            normed = F.group_norm(x[i : i + 1, :, :frames], 16, weight, bias, norm.eps)[0]
            expected = F.gelu(normed.to(dtype))
            torch.testing.assert_close(
                found[i, :, :frames], expected, rtol=2 ** (-7 if dtype == torch.bfloat16 else -10), atol=1e-3
            )


@pytest.mark.faults
def test_audio_shorter_than_a_frame_does_not_depend_on_its_neighbours(models):
    """It counts as one frame, padded with zeros to the 400 samples of a frame."""
    model = models["hubert", "group_norm"]
    short = 0.1 * torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    expected = model(source=F.pad(short, (0, 388)), padding_mask=None)["encoder_out"][0, 0]
    for length in (1600, 9000):
        source = torch.cat([0.1 * torch.randn(1, length), F.pad(short, (0, length - 12))])
        mask = torch.arange(length) >= torch.tensor([[length], [12]])
        out = model(source=source, padding_mask=mask)
        assert out["frame_lengths"].tolist()[1] == 1
        torch.testing.assert_close(out["encoder_out"][0, 1], expected, rtol=0, atol=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("feature_grad_mult", [1.0, 0.3])
def test_evaluation_gradients_are_sums_over_utterances(tmp_path: Path, feature_grad_mult: float) -> None:
    model = build(write_pretrained(tmp_path / "w.pt"), normalize=False, feature_grad_mult=feature_grad_mult).eval()
    sample = batch_of(7, size=3)
    out = model(**sample["net_input"])
    real = torch.arange(len(out["encoder_out"]))[:, None] < out["frame_lengths"]
    out["encoder_out"][real].square().sum().backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert "w2v_encoder.w2v_model.feature_extractor.conv_layers.0.2.weight" in together
    model.zero_grad()
    for i in range(3):
        model(source=alone(sample, i), padding_mask=None)["encoder_out"].square().sum().backward()
    for name, gradient in together.items():
        expected = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max() + 1))


@pytest.mark.faults
@pytest.mark.parametrize("name", [*NORMS, "conformer"])
def test_validation_of_a_batch_is_the_sum_over_utterances(models, name):
    model = models["hubert" if name in NORMS else "wav2vec2", name]
    made, sample = criterion().eval(), batch_of(8)
    with torch.no_grad():
        _, size, together = made(model, sample)
        logs = [made(model, single(sample, i))[2] for i in range(5)]
    assert size == 5 and {"loss", "ctc_teacher", "skd", "word_errors_4"} < set(together)
    for key, value in together.items():
        if key in ("alpha_sum", "batches"):  # per batch, not per utterance
            continue
        assert float(value) == pytest.approx(sum(float(log[key]) for log in logs), rel=1e-5, abs=1e-4), key


@pytest.mark.faults
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.slow
def test_the_guide_of_a_frozen_teacher(models, name):
    """The teacher of ``kd_ctc`` is in evaluation mode while the student's encoder trains."""
    student, sample = rebuild(models["hubert", name]).train(), batch_of(10)
    teacher = FrozenTeacher(Recognizer(trained(models["wavlm", name]), (0,), "cpu"))
    together = teacher(sample["net_input"], student)
    for i in range(5):
        expected = teacher({"source": alone(sample, i)}, student)[:, 0]
        torch.testing.assert_close(together[: len(expected), i], expected, rtol=0, atol=1e-5)


def test_training_equals_fairseq(models):
    """In training the group norm includes the padding, as in pretraining."""
    trunk = rebuild(models["wav2vec2", "group_norm"]).train().w2v_encoder
    extractor, seen = trunk.w2v_model.feature_extractor, []
    net_input = batch_of(9)["net_input"]
    expected = extractor(net_input["source"])
    extractor.register_forward_hook(lambda *_: seen.append(_[2]))
    trunk(**net_input, taps=[1])
    assert torch.equal(torch.cat(seen), expected)
