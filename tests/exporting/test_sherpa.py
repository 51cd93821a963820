"""sherpa-onnx decodes an exported folder, with times."""

import pytest
import soundfile
import torch
import torch.nn.functional as F

from fairseq_skd import recognizer
from fairseq_skd.errors import UserError
from fairseq_skd.exporting import sherpa
from tests.decoding.checkpoints import write_fine_tuned
from tests.goldens import cases
from tests.models.models import LARGE

AUDIO = sorted((cases.HERE / "corpus").glob("*.flac"))


@pytest.fixture(scope="module", params=cases.KINDS)
def rec(request):
    return recognizer.load(cases.HERE / f"{request.param}.pt", exits=(cases.STUDENT,), device="cpu")


def spikes(rec, wave):
    """Symbols and frames at which a new symbol begins on the best path."""
    best = rec(*rec.batch([wave])).logits[rec.exits[0]][:, 0].argmax(dim=-1).tolist()
    begun = [frame for frame, unit in enumerate(best) if unit != 0 and (frame == 0 or best[frame - 1] != unit)]
    return [rec.symbols[best[frame]] for frame in begun], begun


@pytest.mark.slow
def test_texts_and_times(rec, tmp_path):
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    sherpa.write(rec, tmp_path)
    model = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        str(tmp_path / "model.onnx"), str(tmp_path / "tokens.txt")
    )
    texts = list(map(str, rec.transcribe(AUDIO)))
    assert len(set(texts)) > 1
    for path, text in zip(AUDIO, texts, strict=True):
        wave, rate = soundfile.read(path, dtype="float32")
        stream = model.create_stream()
        stream.accept_waveform(rate, wave)
        model.decode_stream(stream)
        assert stream.result.text.strip() == text
        units, frames = spikes(rec, F.layer_norm(torch.from_numpy(wave), (len(wave),)))
        assert [" " if unit == "|" else unit for unit in units] == stream.result.tokens
        assert stream.result.timestamps == pytest.approx([frame * rec.frame_seconds for frame in frames], abs=1e-4)


@pytest.mark.slow
def test_tokens(rec, tmp_path):
    sherpa.write(rec, tmp_path, int8=True)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.int8.onnx", "tokens.txt"}
    tokens = (tmp_path / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert tokens[0] == "<blk> 0" and tokens[4:6] == ["\u2581 4", "E 5"]


def test_only_letters_have_a_word_end(rec, tmp_path, monkeypatch):
    """A piece | is a character of its own."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "|", "\u2581A"]
    monkeypatch.setattr(recognizer.Recognizer, "symbols", pieces)
    monkeypatch.setattr(recognizer.Recognizer, "post_process", "sentencepiece")
    monkeypatch.setattr(sherpa, "export", lambda *_: None)
    sherpa.write(rec, tmp_path)
    assert (tmp_path / "tokens.txt").read_text(encoding="utf-8") == (
        "<blk> 0\n<pad> 1\n</s> 2\n<unk> 3\n| 4\n\u2581A 5\n"
    )


@pytest.mark.slow
def test_a_layer_norm_extractor_trained_without_scaling(tmp_path):
    path = write_fine_tuned(tmp_path / "checkpoint.pt", **LARGE)
    with pytest.raises(UserError) as refused:
        sherpa.write(recognizer.load(path, exits=(2,), device="cpu"), tmp_path)
    assert str(refused.value) == (
        f"checkpoint {path} cannot be exported to sherpa-onnx: sherpa-onnx scales audio to zero mean and unit "
        f"variance, but this encoder was trained with normalize=false, and its layer-norm feature extractor depends "
        f"on the scale; use --format onnx"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("sample_rate", 8000, "it takes audio at 8000 Hz"), ("post_process", "none", "its criterion.post_process=none")],
)
def test_other_audio_and_units(rec, tmp_path, monkeypatch, name, value, message):
    monkeypatch.setattr(recognizer.Recognizer, name, value)
    with pytest.raises(UserError, match=message):
        sherpa.write(rec, tmp_path)


def test_frames_of_40_ms_would_get_wrong_times(tmp_path):
    convolutions = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 3"
    rec = recognizer.load(write_fine_tuned(tmp_path / "m.pt", conv_feature_layers=convolutions), device="cpu")
    with pytest.raises(UserError, match=r"its frames are 40 ms apart, but sherpa-onnx counts every frame as 20 ms"):
        sherpa.check(rec)
