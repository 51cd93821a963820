"""What a manifest needs to know of an audio file, read the way fairseq reads it later; conversion to 16 kHz."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from fairseq_skd.corpora.records import Fault, Kind
from fairseq_skd.files.disk import named

SAMPLE_RATE = 16000

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""(kernel, stride) of the feature extractor that HuBERT and wav2vec 2.0 share; nothing is padded."""

_AT_MOST_16_BITS = ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW")

_UNKNOWN_LENGTH = 2**62  # libsndfile's count where a header holds none is 2**63 - 1


class Audio(NamedTuple):
    """An audio file's samples per channel, samples per second, and channels."""

    samples: int
    rate: int
    channels: int


def frames(samples: int) -> int:
    """How many frames the encoder makes of that many samples at 16 kHz."""
    for kernel, stride in CONVOLUTIONS:
        samples = max(0, (samples - kernel) // stride + 1)
    return samples


def inspect(path: str, decode: bool = False) -> Audio | Fault:
    """Samples, rate and channels of a file, or why fairseq could not read it.

    The count is the header's. That is what decoding yields for WAV and SPHERE, where libsndfile reckons with the file's
    size, and for Ogg, where it takes it from the last page; a FLAC file that was cut short still announces its whole
    length, so its last sample is looked for as well.

    Args:
        path: the file.
        decode: decode the file from beginning to end, which finds what fairseq would fail on or read too short, and
            samples that are no numbers.
    """
    if not os.path.isfile(path):  # libsndfile would wait for ever on a pipe
        return _unreadable(path, FileNotFoundError())
    try:
        with soundfile.SoundFile(path) as file:
            audio = Audio(file.frames, file.samplerate, file.channels)
            if audio.samples >= _UNKNOWN_LENGTH:
                return Fault(Kind.UNREADABLE, "its header does not say how long it is")
            if decode:
                wave = _decode(file)
                return wave if isinstance(wave, Fault) else audio
            if file.format == "FLAC" and audio.samples:
                file.seek(audio.samples - 1)  # decodes the frame that holds it, or fails; reading it costs twice that
            elif file.format not in ("WAV", "OGG", "NIST") and audio.samples:
                file.seek(audio.samples - 1)
                if len(file.read(1)) != 1:
                    return Fault(Kind.UNREADABLE, f"it ends before the {audio.samples} samples of its header")
            return audio
    except (RuntimeError, TypeError) as error:  # libsndfile's own errors; the other for names that end in .raw
        return _unreadable(path, error)


def _decode(file: soundfile.SoundFile) -> np.ndarray[Any, np.dtype[np.float32]] | Fault:
    """All samples of an open file, (samples,) or (samples, channels), or why they are unfit."""
    wave = file.read(dtype="float32")  # in one stroke, as fairseq does: read in blocks, a damaged Ogg file seems whole
    if len(wave) != file.frames:
        return Fault(Kind.UNREADABLE, f"damaged: decoding ends after {len(wave)} of {file.frames} samples")
    if not np.isfinite(wave).all():
        return Fault(Kind.UNREADABLE, "some of its samples are no finite numbers")
    return wave


def _unreadable(path: str, error: Exception) -> Fault:
    """Why ``path`` could not be opened or decoded, as far as the file system knows more than libsndfile."""
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
    return Fault(Kind.UNREADABLE, reason or "damaged or cut short")


def _is_shortened(path: str) -> bool:
    """Whether a file is NIST SPHERE with compressed samples, which libsndfile refuses without a word."""
    with open(path, "rb") as file:
        header = file.read(1024)
    return header.startswith(b"NIST_1A") and b"embedded-shorten" in header


def resampled_length(samples: int, rate: int) -> int:
    """How many samples ``samples`` at ``rate`` become at 16 kHz, rounded to the nearest."""
    return (2 * samples * SAMPLE_RATE + rate) // (2 * rate)


class Piece(NamedTuple):
    """Samples ``first`` to ``stop`` (exclusive) of a recording, and the FLAC file that they become."""

    first: int
    stop: int
    target: str


def extract(source: str, pieces: Sequence[Piece]) -> list[int | Fault]:
    """Write pieces of a one-channel recording as 16 kHz, 16-bit FLAC files.

    Where the recording has 16 kHz and no more than 16 bits, the samples are kept as they are.

    Args:
        source: the recording, opened once.
        pieces: what to write; the targets' folders are created.

    Returns:
        for each piece the samples written, or why ``source`` could not be read there.

    Raises:
        OSError: if a target cannot be written.
    """
    try:
        with soundfile.SoundFile(source) as file:
            return [_extract(file, source, piece) for piece in pieces]
    except RuntimeError as error:
        return [_unreadable(source, error)] * len(pieces)


def _extract(file: soundfile.SoundFile, source: str, piece: Piece) -> int | Fault:
    exact = file.samplerate == SAMPLE_RATE and file.subtype in _AT_MOST_16_BITS
    try:
        file.seek(piece.first)
        wave = file.read(piece.stop - piece.first, dtype="int16" if exact else "float32")
    except RuntimeError as error:
        return _unreadable(source, error)
    if len(wave) != piece.stop - piece.first:
        return Fault(
            Kind.UNREADABLE, f"damaged: decoding ends after {piece.first + len(wave)} of {file.frames} samples"
        )
    if not exact and not np.isfinite(wave).all():
        return Fault(Kind.UNREADABLE, "some of its samples are no finite numbers")
    if file.samplerate != SAMPLE_RATE:
        import soxr  # only here: a folder that is at 16 kHz need not wait for it

        wave = soxr.resample(wave, file.samplerate, SAMPLE_RATE, quality="VHQ")
    Path(piece.target).parent.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()  # by way of memory: libsndfile does not tell why it cannot write to a disk
    soundfile.write(encoded, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with named(piece.target):
        Path(piece.target).write_bytes(encoded.getbuffer())
    return len(wave)
