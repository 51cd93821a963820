"""Audio files: sample counts equal decoding, damage is found, conversion keeps the signal."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq.models.wav2vec.wav2vec2 import ConvFeatureExtractionModel

from fairseq_skd.corpora.audio import CONVOLUTIONS, Audio, Cut, extract, frames, inspect, resampled_length
from fairseq_skd.corpora.records import Fault, Kind

FORMATS = [
    ("a.wav", {}),
    ("a.flac", {}),
    ("a.ogg", {"subtype": "OPUS"}),
    ("b.ogg", {"subtype": "VORBIS"}),
]


@pytest.mark.parametrize(("name", "options"), FORMATS)
@pytest.mark.parametrize("samples", [1, 399, 15999, 40000])
@pytest.mark.parametrize("decode", [False, True])
def test_count_is_what_fairseq_will_decode(tone, name: str, options: dict[str, str], samples: int, decode: bool):
    path = tone(name, samples, **options)
    assert inspect(str(path), decode) == Audio(samples, 16000, 1)
    assert len(soundfile.read(path)[0]) == samples


def test_rate_and_channels(tone):
    assert inspect(str(tone("a.wav", 800, 8000, 2))) == Audio(800, 8000, 2)


def test_frames_equal_fairseqs_extractor():
    layers = [(1, kernel, stride) for kernel, stride in CONVOLUTIONS]
    extractor = ConvFeatureExtractionModel(layers, mode="layer_norm")
    for samples in (400, 719, 720, 16000, 16079, 16080):
        with torch.no_grad():
            assert frames(samples) == extractor(torch.zeros(1, samples)).shape[-1]
    assert [frames(samples) for samples in (0, 1, 399, 400, 16000)] == [0, 0, 0, 1, 49]


def damage(path: Path, change: slice, new: bytes) -> None:
    """Replace some bytes of a file."""
    data = bytearray(path.read_bytes())
    data[change] = new
    path.write_bytes(data)


def fault_of(path: Path, decode: bool = False) -> Fault:
    """Return the fault that ``inspect`` must find in a file."""
    found = inspect(str(path), decode)
    assert isinstance(found, Fault)
    return found


def test_truncated_flac_is_unreadable(tone):
    path = tone("a.flac")
    path.write_bytes(path.read_bytes()[:-40])
    assert soundfile.info(path).frames == 16000, "its header still announces the whole length"
    assert fault_of(path).kind is Kind.UNREADABLE and fault_of(path).detail


def test_flac_without_length_is_unreadable(tone):
    path = tone("a.flac")
    data = path.read_bytes()
    damage(path, slice(21, 26), bytes([data[21] & 0xF0, 0, 0, 0, 0]))  # 36 bits: total samples, 0 for unknown
    assert fault_of(path) == Fault(Kind.UNREADABLE, "its header does not say how long it is")


@pytest.mark.parametrize(("name", "options"), [FORMATS[1], FORMATS[2]])
def test_hole_in_the_middle_is_found_by_decoding(tone, name: str, options: dict[str, str]):
    path = tone(name, 160000, **options)
    middle = path.stat().st_size // 2
    damage(path, slice(middle, middle + 2000), bytes(2000))
    assert fault_of(path, decode=True).kind is Kind.UNREADABLE


def test_not_a_number_is_found_by_decoding(tmp_path: Path):
    wave = np.zeros(16000, np.float32)
    wave[8000] = np.nan
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    fault = fault_of(tmp_path / "a.wav", decode=True)
    assert fault == Fault(Kind.UNREADABLE, "some samples are NaN or Inf")


def test_files_that_are_not_audio(tmp_path: Path):
    (tmp_path / "text.wav").write_text("no audio here\n" * 40)
    (tmp_path / "samples.raw").write_bytes(bytes(3200))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    assert fault_of(tmp_path / "text.wav").kind is Kind.UNREADABLE
    assert fault_of(tmp_path / "samples.raw").kind is Kind.UNREADABLE
    assert fault_of(tmp_path / "empty.wav").detail == "it has 0 bytes"
    assert fault_of(tmp_path / "folder.wav").detail == "it is not a file"
    assert fault_of(tmp_path / "pipe.wav").detail == "it is not a file"
    assert fault_of(tmp_path / "none.wav") == Fault(Kind.MISSING, f"looked for {tmp_path / 'none.wav'}")


def test_file_without_permission(tone, monkeypatch):
    def denied(*_: object) -> None:
        raise soundfile.LibsndfileError(2)

    path = tone("a.wav")
    monkeypatch.setattr(soundfile, "SoundFile", denied)  # not chmod, since root often runs the tests
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert fault_of(path).detail == "no permission to read it"


@pytest.mark.parametrize(("rate", "samples"), [(8000, 4001), (44100, 44101), (48000, 20001), (22050, 12345)])
def test_extract_keeps_the_tone(tone, tmp_path: Path, rate: int, samples: int):
    source, target = tone("a.wav", samples, rate), tmp_path / "deep" / "a.flac"
    (length,) = extract(str(source), [Cut(0, samples, str(target))])
    wave, new_rate = soundfile.read(target)
    assert new_rate == 16000 and length == len(wave)
    assert abs(len(wave) - resampled_length(samples, rate)) <= 1
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(wave)) / 16000)
    inner = slice(800, -800)  # away from the ends, where the filter meets silence
    assert np.abs(wave - expected)[inner].max() < 1e-3


def test_extract_reports_a_damaged_source(tone, tmp_path: Path):
    source = tone("a.flac", rate=8000)
    source.write_bytes(source.read_bytes()[:-40])
    (found,) = extract(str(source), [Cut(0, 16000, str(tmp_path / "a.flac"))])
    assert isinstance(found, Fault) and found.kind is Kind.UNREADABLE and found.detail
