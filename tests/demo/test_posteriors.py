import sys

import numpy as np
import pytest
import soundfile

from fairseq_skd.demo.figure import main
from fairseq_skd.demo.posteriors import posteriors_of_utterance
from fairseq_skd.errors import UserError
from tests.builders import write_corpus
from tests.decoding.checkpoints import FULL, STUDENT, TEXTS, write_fine_tuned


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"test": TEXTS})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_fine_tuned(tmp_path_factory.mktemp("hubert") / "checkpoint_best.pt")


def test_posteriors_of_all_exits(corpus, checkpoint):
    found = posteriors_of_utterance(checkpoint, corpus, "test", 3)
    assert list(found.posteriors) == [FULL, STUDENT]
    assert found.text == "EAT"
    assert found.frame_seconds == pytest.approx(0.02)
    assert found.symbols[0] == "<s>"
    waveform, _ = soundfile.read(corpus / "audio" / "test3.wav", dtype="float32")
    np.testing.assert_array_equal(found.waveform, waveform)
    for values in found.posteriors.values():
        assert values.shape == (1 + (len(waveform) - 400) // 320, len(found.symbols))
        np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(found.posteriors[FULL] - found.posteriors[STUDENT]).max() > 0.01


def test_audio_is_normalised_as_in_training(corpus, tmp_path):
    normalising = write_fine_tuned(tmp_path / "normalising.pt", normalize=True)
    found = posteriors_of_utterance(normalising, corpus, "test", 0).posteriors[FULL]
    waveform, rate = soundfile.read(corpus / "audio" / "test0.wav", dtype="float32")
    soundfile.write(corpus / "audio" / "test0.wav", waveform * 0.5, rate, subtype="FLOAT")
    halved = posteriors_of_utterance(normalising, corpus, "test", 0).posteriors[FULL]
    soundfile.write(corpus / "audio" / "test0.wav", waveform, rate, subtype="PCM_16")
    np.testing.assert_allclose(found, halved, atol=1e-3)


@pytest.mark.parametrize("index", [-1, 5])
def test_utterance_that_the_manifest_lacks(corpus, checkpoint, index):
    with pytest.raises(UserError, match=rf"--utterance {index}: .*test\.tsv has utterances 0 to 4"):
        posteriors_of_utterance(checkpoint, corpus, "test", index)


def test_command(corpus, checkpoint, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "spikes.png"
    command = ["figure", str(checkpoint), "--data", str(corpus), "--utterance", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert str(out) in capsys.readouterr().out
