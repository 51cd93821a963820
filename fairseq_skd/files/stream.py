"""Read audio of any rate, number of channels and length in blocks at the model's sampling rate."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fairseq_skd.files.waveforms import (
    UnreadableAudioError,
    audio_name,
    check_length,
    check_samples,
    open_audio,
    read_samples,
)

Floats = npt.NDArray[np.float32]

_SECONDS = 5  # per block
_MOST_VALUES = 1 << 21  # per block, over all channels: 8 MB
_LOWEST, _HIGHEST = 1_000, 1_000_000  # Hz; real files have 8,000 to 384,000


def read_blocks(source: str | os.PathLike[str] | BinaryIO, sample_rate: int, shortest: int = 1) -> Iterator[Floats]:
    """Read a file in blocks of a few seconds, mixed down and resampled.

    Memory does not grow with the length of the file. A file that has the wanted rate gives the
    samples of :func:`~fairseq_skd.files.waveforms.read_audio`, bit for bit. Other files are
    resampled by soxr at its highest quality.

    >>> [len(block) for block in read_blocks("tests/goldens/corpus/test1.flac", 16000)]
    [16000]

    Args:
        source: anything that libsndfile reads: a path, fairseq's ``<zip>:<offset>:<length>``, or a
            binary file object. A pipe is first copied to a temporary file.
        sample_rate: of the blocks, in Hz.
        shortest: samples of all blocks together that the model needs for one frame.

    Yields:
        (samples,) in [-1, 1]: the mean of the channels.

    Raises:
        UnreadableAudioError: the file is missing, not audio, damaged, too short or shorter or
            longer than its header says, or holds NaN or Inf. Blocks before the damage are yielded
            first.
    """
    if not isinstance(source, str | os.PathLike) and not source.seekable():  # libsndfile seeks
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            copy.seek(0)
            yield from _read(copy, audio_name(source), sample_rate, shortest)
    else:
        yield from _read(source, audio_name(source), sample_rate, shortest)


def _read(source: Any, name: str, sample_rate: int, shortest: int) -> Iterator[Floats]:
    given = 0
    for block in _resampled(source, name, sample_rate):
        if len(block):
            given += len(block)
            yield block
    check_length(name, given, shortest)


def _resampled(source: Any, name: str, sample_rate: int) -> Iterator[Floats]:
    with open_audio(source, name) as file:
        rate, left = file.samplerate, file.frames
        if rate != sample_rate and not _LOWEST <= rate <= _HIGHEST:
            raise UnreadableAudioError(name, f"its header states a sampling rate of {rate} Hz: correct it")
        resampler = None
        if rate != sample_rate:
            import soxr  # imported here: audio at the model's rate does not wait for it

            resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="VHQ")
        longest = max(1, min(_SECONDS * rate, _MOST_VALUES // file.channels))
        while left:
            count = min(left, longest)
            block = read_samples(file, count)
            left -= count  # not the block's: the end of an MP3 file may come earlier
            check_samples(name, block)
            yield block if resampler is None else resampler.resample_chunk(block, last=not left)
        if file.goes_on():
            raise UnreadableAudioError(name, f"it goes on after the {file.frames} samples of its header: convert it")
