"""A WavLM made from a HuBERT equals it until it is trained."""

import sys

import pytest
import torch

from experiments.wavlm_from_hubert import main
from fairseq_skd.encoders.checkpoint import load_pretrained, load_weights
from fairseq_skd.encoders.trunk import Regularisation, Trunk
from fairseq_skd.errors import UserError
from tests.builders import batch, write_pretrained

LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm", "conv_bias": True}


@pytest.fixture
def convert(tmp_path, monkeypatch):
    def run(hubert, *options):
        monkeypatch.setattr(sys, "argv", ["wavlm_from_hubert.py", str(hubert), str(tmp_path / "wavlm.pt"), *options])
        main()
        return tmp_path / "wavlm.pt"

    return run


def trunk(path) -> Trunk:
    pretrained = load_pretrained(path)
    built = Trunk(pretrained, pretrained.depth, {}, Regularisation())
    load_weights(built.w2v_model, pretrained.weights, str(path))
    return built.eval()


@pytest.mark.parametrize("changes", [{}, LARGE], ids=["base", "large"])
@pytest.mark.slow
def test_it_gives_the_outputs_of_the_hubert(tmp_path, convert, changes):
    hubert = write_pretrained(tmp_path / "hubert.pt", normalize=bool(changes), **changes)
    wavlm = convert(hubert, "--num-buckets=32", "--max-distance=40")
    pretrained = load_pretrained(wavlm)
    assert (pretrained.kind, pretrained.normalize) == ("wavlm", bool(changes))
    net_input = batch([1.5, 0.7, 1.0], ["A", "B", "C"])["net_input"]
    layers = range(1, 5)
    with torch.no_grad():
        expected, found = (trunk(path)(**net_input, taps=layers) for path in (hubert, wavlm))
    real = ~expected.padding_mask.T
    for layer in layers:
        torch.testing.assert_close(found.taps[layer][real], expected.taps[layer][real], rtol=0, atol=1e-6)
        # the bias is used: with other values than zero the output changes
    shifted = trunk(wavlm)
    shifted.w2v_model.encoder.layers[0].self_attn.relative_attention_bias.weight.data.normal_()
    assert (shifted(**net_input, taps=[4]).taps[4] - expected.taps[4])[real].abs().max() > 1e-2


def test_it_takes_a_hubert_only(tmp_path, convert):
    with pytest.raises(UserError, match="is a wav2vec2 model: give a HuBERT$"):
        convert(write_pretrained(tmp_path / "w.pt", "wav2vec2"))
    assert not (tmp_path / "wavlm.pt").exists()
