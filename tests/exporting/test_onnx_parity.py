"""Graphs of ``onnx`` and ``sherpa`` against torch: each family, order of norms and exit."""

import itertools

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from fairseq_skd import recognizer
from fairseq_skd.exporting import onnx as onnx_format
from fairseq_skd.exporting import sherpa
from fairseq_skd.onnx_recognizer import OnnxRecognizer
from tests.decoding.checkpoints import FULL, STUDENT, write_fine_tuned
from tests.models.models import LARGE

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # of the largest log posterior
RATE = 16000
# None is traced. The third has an odd number of frames, which fairseq pads before its layers.
SAMPLES = (RATE // 10, 5001, 2 * RATE + 401, 30 * RATE)
STYLES = {"post-LN": {}, "pre-LN": {**LARGE, "normalize": True}}
CASES = list(itertools.product(("hubert", "wav2vec2", "wavlm"), STYLES, (FULL, STUDENT)))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def rec(request, tmp_path_factory):
    kind, style, layer = request.param
    path = write_fine_tuned(tmp_path_factory.mktemp("run") / "checkpoint.pt", kind, **STYLES[style])
    return recognizer.load(path, exits=(layer,), device="cpu")


@pytest.fixture(scope="module")
def exported(rec, tmp_path_factory):
    """Folders of both formats."""
    folders = {}
    for format_ in (onnx_format, sherpa):
        folders[format_] = tmp_path_factory.mktemp("out")
        format_.write(rec, folders[format_])
    return folders


def noise(samples, seed=0):
    wave = np.random.default_rng(seed).standard_normal(samples) * 0.1 + 0.02  # an offset, which scaling removes
    return wave.astype(np.float32)


def alone(rec, wave):
    """Log posteriors (T, V) of one utterance from torch."""
    out = rec(*rec.batch([wave]))
    return F.log_softmax(out.logits[rec.exits[0]][:, 0], dim=-1).numpy()


def difference(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_alone(rec, exported):
    ours = OnnxRecognizer(exported[onnx_format])
    for samples in SAMPLES:
        wave = noise(samples)
        out = ours(*ours.batch([wave]))
        assert difference(out.logits[rec.exits[0]][:, 0].numpy(), alone(rec, wave)) < TOLERANCE
        assert out.lengths.tolist() == [len(alone(rec, wave))]


def test_padded(rec, exported):
    session = onnxruntime.InferenceSession(exported[onnx_format] / "model.onnx")
    waves = [noise(samples, seed) for seed, samples in enumerate((5001, 3 * RATE + 7, RATE // 10, RATE))]
    lengths = np.array([len(wave) for wave in waves])
    batch = np.full((len(waves), max(lengths)), 0.5, np.float32)  # whatever is beyond the lengths is ignored
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    log_probs, frames = session.run(["log_probs", "frame_lengths"], {"x": batch, "lengths": lengths})
    for wave, found, count in zip(waves, log_probs, frames, strict=True):
        assert difference(found[:count], alone(rec, wave)) < TOLERANCE
        assert (found[count:, 0] == 0).all() and np.isneginf(found[count:, 1:]).all()  # certainly blank


def test_sherpa_takes_scaled_audio_without_lengths(rec, exported):
    path = exported[sherpa] / "model.onnx"
    session = onnxruntime.InferenceSession(path)
    assert [one.name for one in session.get_inputs()] == ["x"]
    (output,) = session.get_outputs()
    assert output.shape[2] == len(rec.symbols)
    assert not onnx.load(path).metadata_props
    for samples in SAMPLES[:3]:
        wave = torch.from_numpy(noise(samples))
        scaled = F.layer_norm(wave, wave.shape)  # as sherpa-onnx does
        (found,) = session.run(None, {"x": scaled.unsqueeze(0).numpy()})
        expected = rec(scaled.unsqueeze(0)).logits[rec.exits[0]][:, 0]
        assert difference(found[0], F.log_softmax(expected, dim=-1).numpy()) < TOLERANCE
