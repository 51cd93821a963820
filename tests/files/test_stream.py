"""Blocks of audio equal the audio read at once, and damaged files are told."""

import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from fairseq_skd.files import stream
from fairseq_skd.files.stream import read_blocks
from fairseq_skd.files.waveforms import UnreadableAudioError, read_audio

FORMATS = {
    "wav": ("WAV", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "sph": ("NIST", "PCM_16"),
}


def encoded(wave: np.ndarray, rate: int = 16000, kind: str = "wav", subtype: str | None = None) -> bytes:
    name, usual = FORMATS[kind]
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=name, subtype=subtype or usual)
    return file.getvalue()


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    wave = 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))
    return (wave[:, 0] if channels == 1 else wave).astype(np.float32)


def joined(source: Any, rate: int = 16000, shortest: int = 1) -> np.ndarray:
    return np.concatenate(list(read_blocks(source, rate, shortest)))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_audio_at_the_rate_is_read_bit_for_bit(
    kind: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "mp3" and channels > 2:
        pytest.skip("MP3 has at most two channels")
    monkeypatch.setattr(stream, "_SECONDS", 1)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(encoded(noise(20001, channels), kind=kind))
    expected, rate = read_audio(path)
    assert rate == 16000 and expected.shape == (20001,)
    for source in (path, str(path), path.open("rb"), io.BytesIO(path.read_bytes())):
        blocks = list(read_blocks(source, 16000))
        assert max(map(len, blocks)) <= 16000
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        assert all(block.dtype == np.float32 for block in blocks)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("samples", [3, 7999, 40000, 100001])
def test_resampled_blocks_equal_resampling_at_once(rate: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_SECONDS", 1)
    wave = noise(samples, 2)
    expected = soxr.resample(wave.mean(axis=1), rate, 16000, quality="VHQ")
    found = joined(io.BytesIO(encoded(wave, rate, subtype="FLOAT")))
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_tone_keeps_its_frequency_and_height() -> None:
    time = np.arange(44100 * 3) / 44100
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    found = joined(io.BytesIO(encoded(np.stack([tone, 0.5 * tone], axis=1), 44100, subtype="FLOAT")))
    expected = 0.75 * np.sin(2 * np.pi * 1000 * np.arange(48000) / 16000)
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=1e-4)


def test_a_pipe_and_a_slice_of_a_zip_file(tmp_path: Path) -> None:
    wave = noise(20000)
    data = encoded(wave, subtype="FLOAT")
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        if os.fork() == 0:  # more than a pipe holds, so another process writes
            os.close(read)
            with os.fdopen(write, "wb") as end:
                end.write(data)
            os._exit(0)
        os.close(write)
        np.testing.assert_array_equal(joined(pipe), wave)
    archive = tmp_path / "all.zip"
    archive.write_bytes(b"PK\x03\x04" + bytes(46) + data)
    np.testing.assert_array_equal(joined(f"{archive}:50:{len(data)}"), wave)


def test_a_name_with_colons(tmp_path: Path) -> None:
    """fairseq takes colons for a slice of a zip file, except in WAV, FLAC and Ogg files."""
    wave = noise(20000)
    (tmp_path / "at 12:30:00.mp3").write_bytes(encoded(wave, subtype="FLOAT"))
    np.testing.assert_array_equal(joined(str(tmp_path / "at 12:30:00.mp3")), wave)


def damaged(kind: str, seconds: int = 12) -> bytes:
    """Encode a file and overwrite a few bytes in its middle."""
    data = bytearray(encoded(noise(seconds * 16000), kind=kind))
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    return bytes(data)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", pytest.param("opus", marks=pytest.mark.slow)])
def test_damage_in_the_middle_is_told_after_the_blocks_before_it(kind: str) -> None:
    data = damaged(kind)
    with pytest.raises(UnreadableAudioError) as caught:
        joined(io.BytesIO(data))
    assert "\n" not in caught.value.reason
    blocks = read_blocks(io.BytesIO(data), 16000)
    assert len(next(blocks)) == 80000


@pytest.mark.faults
def test_damage_is_told_by_read_audio_too(tmp_path: Path) -> None:
    """libsndfile returns what stands before the damage, without an error."""
    path = tmp_path / "x.ogg"
    path.write_bytes(damaged("ogg"))
    with pytest.raises(UnreadableAudioError, match=r"it decodes to \d+ samples, but its header lists 192000:"):
        read_audio(path)


def test_headers_that_lie_about_the_length() -> None:
    wave = noise(16000 * 5)
    mp3 = encoded(wave, kind="mp3")
    with pytest.raises(
        UnreadableAudioError,
        match=r"it decodes to \d+ samples, but its header lists 80000: it is damaged or incomplete$",
    ):
        joined(io.BytesIO(mp3[: len(mp3) // 2]))
    flac = bytearray(encoded(wave, kind="flac"))
    with pytest.raises(UnreadableAudioError):
        joined(io.BytesIO(flac[: len(flac) // 2]))
    flac[21] &= 0xF0  # the 36 bits of the number of samples
    flac[22:26] = bytes(4)
    with pytest.raises(UnreadableAudioError, match="its header does not state its length: convert it$"):
        joined(io.BytesIO(flac))
    wav = bytearray(encoded(wave, subtype="FLOAT"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = b"\xff" * 4  # written to a pipe: the length is the file's
    np.testing.assert_array_equal(joined(io.BytesIO(wav)), wave)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_files_that_cannot_be_used(rate: int, tmp_path: Path) -> None:
    nan = noise(rate * 9)
    nan[rate * 7] = np.nan

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    for path, reason in {
        tmp_path / "gone.wav": "",
        tmp_path: "",
        write("none.wav", b""): "",
        write("text.wav", b"no audio at all"): "",
        write("x.raw", bytes(1000)): "",
        write("nan.wav", encoded(nan, rate, subtype="FLOAT")): "it holds NaN or Inf: replace it, or leave it out",
        write(
            "empty.wav", encoded(noise(0), rate)
        ): "it has 0 samples, the model needs 400 for one frame: leave it out",
        write("short.wav", encoded(noise(399 * rate // 16000), rate)): "it has 399 samples, the model needs 400 .*",
        write("slow.wav", encoded(noise(100), 10)): "its header states a sampling rate of 10 Hz: correct it",
    }.items():
        with pytest.raises(UnreadableAudioError, match=rf"^audio file {path} cannot be read: .*{reason}$") as caught:
            joined(path, shortest=400)
        assert caught.value.reason and "\n" not in caught.value.reason
    assert len(joined(io.BytesIO(encoded(noise(400))), shortest=400)) == 400


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(minutes: int, rate: int, channels: int) -> int:
        path = tmp_path / "x.wav"
        with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
            for _ in range(minutes * 60):
                file.write(np.zeros((rate, channels), np.int16))
        tracemalloc.start()
        samples = sum(map(len, read_blocks(path, 16000)))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert samples == minutes * 60 * 16000
        return highest

    assert peak(3, 8000, 1) - peak(1, 8000, 1) < 100_000
    assert peak(1, 16000, 16) < 40_000_000
