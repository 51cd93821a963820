"""Inspect audio files the way fairseq reads them later, and convert them to 16 kHz."""

import io
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from fairseq_skd.corpora.records import Fault, Kind
from fairseq_skd.files.disk import named
from fairseq_skd.files.sound import ForwardFile, open_forward, quiet

SAMPLE_RATE = 16000

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""(kernel, stride) of the feature extractor of HuBERT and wav2vec 2.0, which has no padding."""

_AT_MOST_16_BITS = ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW")

MEAN = "mean"
"""The channel option that mixes all channels."""

_NEVER_MP3 = (b"fLaC", b"RIFF", b"OggS", b"NIST")  # libmpg123 is not asked: no time to silence it

_BLOCK = 1 << 18  # samples of an MP3 file that are decoded at once

_UNKNOWN_LENGTH = 2**62  # without a length in the header, libsndfile says 2**63 - 1


class Audio(NamedTuple):
    """Samples per channel, sampling rate in Hz, and number of channels of an audio file.

    ``mp3`` tells that fairseq would decode MP3 in each epoch.
    """

    samples: int
    rate: int
    channels: int
    mp3: bool = False


def frames(samples: int) -> int:
    """Count the frames that the encoder makes of ``samples`` samples at 16 kHz."""
    for kernel, stride in CONVOLUTIONS:
        samples = max(0, (samples - kernel) // stride + 1)
    return samples


def inspect(path: str, decode: bool = False) -> Audio | Fault:
    """Read samples, rate and channels of a file, or find out why fairseq could not read it.

    The number of samples comes from the header. It equals what decoding yields for WAV and SPHERE,
    where libsndfile considers the file's size, and for Ogg, where libsndfile reads the last page. A
    truncated FLAC file still announces its whole length, so its last sample is read as well. The
    length in an MP3 file's header may be wrong, so these files are decoded.

    Args:
        path: the file.
        decode: decode the whole file, which also finds damage in the middle, and NaN or Inf.
    """
    if path.endswith(".flac") and os.path.isfile(path):  # a large corpus has no time for the first bytes
        return _inspect(path, decode)
    try:
        first = _first_bytes(path)
    except OSError as error:
        return _unreadable(path, error)
    if first in _NEVER_MP3:
        return _inspect(path, decode)
    with quiet() as said:
        found = _inspect(path, decode)
    return _with_reason(found, said)


def _first_bytes(path: str) -> bytes:
    """Read the first four bytes of a file.

    Raises:
        OSError: it is no file, on which libsndfile would wait for ever, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError
        return os.read(descriptor, 4)
    finally:
        os.close(descriptor)


def _inspect(path: str, decode: bool) -> Audio | Fault:
    try:
        with soundfile.SoundFile(path) as file:
            audio = Audio(file.frames, file.samplerate, file.channels)
            if audio.samples >= _UNKNOWN_LENGTH:
                return Fault(Kind.UNREADABLE, "its header does not say how long it is")
            if file.format == "MP3":
                return _inspect_mp3(path)
            if decode:
                wave = _decode(file)
                return wave if isinstance(wave, Fault) else audio
            if file.format == "FLAC" and audio.samples:
                file.seek(audio.samples - 1)  # decodes that frame, or fails; a read would cost twice as much
            elif file.format not in ("WAV", "OGG", "NIST") and audio.samples:
                file.seek(audio.samples - 1)
                if len(file.read(1)) != 1:
                    return Fault(Kind.UNREADABLE, f"it ends before the {audio.samples} samples of its header")
            return audio
    except (RuntimeError, TypeError) as error:  # TypeError for names that end in .raw
        return _unreadable(path, error)


def _inspect_mp3(path: str) -> Audio | Fault:
    """Decode an MP3 file, and count its samples."""
    with open_forward(path) as file:
        while left := file.frames - file.decoded:
            block = file.read(min(left, _BLOCK), dtype="float32")
            file.decoded += len(block)
            if not np.isfinite(block).all():
                return Fault(Kind.UNREADABLE, "some samples are NaN or Inf")
            if len(block) < min(left, _BLOCK):
                break  # fairseq reads once, to the first damage; a further read may find frames after it
        if file.decoded < file.frames and not file.is_guess():
            return _damaged(file.decoded, file.frames)
        if file.goes_on():
            return Fault(Kind.UNREADABLE, f"it goes on after the {file.frames} samples of its header")
        return Audio(file.decoded, file.samplerate, file.channels, mp3=True)


def _with_reason(found: Any, said: list[str]) -> Any:
    """Add to the fault of a file what libmpg123 said of it."""
    if isinstance(found, Fault) and found.kind is Kind.UNREADABLE and said:
        return Fault(found.kind, f"{found.detail} ({said[0].rstrip('.')})")
    return found


def _damaged(decoded: int, stated: int) -> Fault:
    return Fault(Kind.UNREADABLE, f"damaged: decoding ends after {decoded} of {stated} samples")


def _decode(file: soundfile.SoundFile) -> np.ndarray[Any, np.dtype[np.float32]] | Fault:
    """Decode all samples, (samples,) or (samples, channels), or find out why they are unusable."""
    wave = file.read(dtype="float32")  # at once, as fairseq does: in blocks, a damaged Ogg file seems whole
    if len(wave) != file.frames:
        return _damaged(len(wave), file.frames)
    if not np.isfinite(wave).all():
        return Fault(Kind.UNREADABLE, "some samples are NaN or Inf")
    return wave


def _unreadable(path: str, error: Exception) -> Fault:
    """Find out why ``path`` could not be decoded; the file system may know more than libsndfile."""
    if not os.path.exists(path):
        return Fault(Kind.MISSING, f"looked for {path}")
    if not os.path.isfile(path):
        return Fault(Kind.UNREADABLE, "it is not a file")
    if not os.access(path, os.R_OK):
        return Fault(Kind.UNREADABLE, "no permission to read it")
    if os.path.getsize(path) == 0:
        return Fault(Kind.UNREADABLE, "it has 0 bytes")
    if _is_shortened(path):
        return Fault(Kind.UNREADABLE, "SPHERE compressed with shorten; uncompress it, e.g. with sph2pipe or w_decode")
    reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
    if reason.startswith("File does not exist"):  # what libsndfile says if an MP3 file has no frame; it does exist
        reason = ""
    return Fault(Kind.UNREADABLE, reason or "damaged or cut short")


def _is_shortened(path: str) -> bool:
    """Tell whether a file is compressed NIST SPHERE, which libsndfile refuses without a reason."""
    with open(path, "rb") as file:
        header = file.read(1024)
    return header.startswith(b"NIST_1A") and b"embedded-shorten" in header


def resampled_length(samples: int, rate: int) -> int:
    """Convert a number of samples at ``rate`` to 16 kHz, rounded to the nearest."""
    return (2 * samples * SAMPLE_RATE + rate) // (2 * rate)


class Cut(NamedTuple):
    """Samples ``first`` to ``stop`` (exclusive) of a recording, and the FLAC file to write.

    ``channel`` counts from 0, or is :data:`MEAN`; None: the recording has only one.
    """

    first: int
    stop: int
    target: str
    channel: int | str | None = None


def extract(source: str, cuts: Sequence[Cut]) -> list[int | Fault]:
    """Write parts of a recording as one-channel, 16 kHz, 16-bit FLAC files.

    Samples at 16 kHz with at most 16 bits are kept as they are; their mean over channels is rounded
    to the nearest.

    Args:
        source: the recording.
        cuts: the parts to write; the folders of their targets are created.

    Returns:
        for each cut the number of samples written, or why ``source`` could not be read there.

    Raises:
        OSError: a target cannot be written.
    """
    with quiet() as said:
        try:
            with _opened(source) as file:
                read = _MP3(file) if isinstance(file, ForwardFile) else partial(_read, file)
                in_order = sorted(range(len(cuts)), key=lambda number: cuts[number].first)
                made = {number: _extract(file, read, source, cuts[number]) for number in in_order}
                found = [made[number] for number in range(len(cuts))]
        except RuntimeError as error:
            found = [_unreadable(source, error)] * len(cuts)
    return [_with_reason(length, said) for length in found]


def _opened(source: str) -> soundfile.SoundFile:
    """Open a file to read parts of it; MP3 is only read forward."""
    file = soundfile.SoundFile(source)
    if file.format != "MP3":
        return file
    file.close()
    return open_forward(source)


class _MP3:
    """Read parts of an MP3 file whose starts never decrease.

    libsndfile's seek misses the sample by thousands in files of varying bit rate, so all is decoded
    once, and what the next part may need is kept.
    """

    def __init__(self, file: ForwardFile) -> None:
        self._file = file
        self._kept = self._file.read(0, dtype="float32")

    def __call__(self, first: int, stop: int, dtype: str) -> np.ndarray[Any, Any]:
        """Return samples ``first`` to ``stop``, or fewer at the end of the file."""
        while self._file.decoded < stop:
            asked = min(_BLOCK, self._file.frames - self._file.decoded)  # as when the file was inspected
            block = self._file.read(asked, dtype="float32")
            start = self._file.decoded - len(self._kept)
            self._kept = np.concatenate([self._kept[max(0, first - start) :], block])
            self._file.decoded += len(block)
            if not asked or len(block) < asked:
                break
        start = self._file.decoded - len(self._kept)
        return self._kept[max(0, first - start) : max(0, stop - start)]


def _read(file: soundfile.SoundFile, first: int, stop: int, dtype: str) -> np.ndarray[Any, Any]:
    file.seek(first)
    wave: np.ndarray[Any, Any] = file.read(stop - first, dtype=dtype)
    return wave


def _extract(
    file: soundfile.SoundFile, read: Callable[[int, int, str], np.ndarray[Any, Any]], source: str, cut: Cut
) -> int | Fault:
    exact = file.samplerate == SAMPLE_RATE and file.subtype in _AT_MOST_16_BITS
    try:
        wave = read(cut.first, cut.stop, "int16" if exact else "float32")
    except RuntimeError as error:
        return _unreadable(source, error)
    if len(wave) != cut.stop - cut.first:
        return _damaged(cut.first + len(wave), file.frames)
    if not exact and not np.isfinite(wave).all():
        return Fault(Kind.UNREADABLE, "some samples are NaN or Inf")
    if cut.channel == MEAN:
        wave = wave.mean(axis=1, dtype=np.float64)  # (samples, channels) -> (samples,)
        wave = np.rint(wave).astype(np.int16) if exact else wave
    elif cut.channel is not None:
        wave = wave[:, int(cut.channel)]
    if file.samplerate != SAMPLE_RATE:
        import soxr  # imported here: a corpus at 16 kHz does not wait for it

        wave = soxr.resample(wave, file.samplerate, SAMPLE_RATE, quality="VHQ")
    Path(cut.target).parent.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()  # in memory, since libsndfile does not say why it cannot write to a disk
    soundfile.write(encoded, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with named(cut.target):
        Path(cut.target).write_bytes(encoded.getbuffer())
    return len(wave)
