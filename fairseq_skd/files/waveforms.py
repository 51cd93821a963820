"""Read audio for the encoder: check the sampling rate, scale each utterance, pad a batch."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from fairseq.data.audio.audio_utils import parse_path, read_from_stored_zip
from torch import Tensor

from fairseq_skd.errors import UserError
from fairseq_skd.files.sound import ForwardFile, open_forward, quiet

DEFAULT_MAX_TOKENS = 4_000_000  # samples per batch; fairseq's infer has the same default
_UNKNOWN_LENGTH = 2**62  # without a length in the header, libsndfile says 2**63 - 1
Audio = str | os.PathLike[str] | npt.NDArray[np.floating] | Tensor


class UnreadableAudioError(UserError):
    """An audio file that cannot be used.

    Attributes:
        reason: what is wrong, without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"audio file {os.fspath(path)} cannot be read: {reason}")
        self.reason = reason


@contextmanager
def open_audio(source: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Iterator[ForwardFile]:
    """Open a file, a binary file object, or a slice of an uncompressed zip file.

    Args:
        source: a slice is written ``<zip>:<offset>:<length>``, as fairseq writes it. A file object
            must be seekable.
        name: of the file in messages; None: ``source``.

    Raises:
        UnreadableAudioError: the file is missing, has no audio, does not state its length, or an
            error of libsndfile leaves the block.
    """
    name = name or audio_name(source)
    try:
        opened: Any = source
        if isinstance(source, str | os.PathLike):
            opened, slice_ = os.fspath(source), []
            if not os.path.isfile(opened):  # the name of a file may have colons, too
                opened, slice_ = parse_path(opened)
            if not os.path.exists(opened):  # libsndfile says "System error"
                raise FileNotFoundError("it does not exist")
            opened = io.BytesIO(read_from_stored_zip(opened, *slice_)) if len(slice_) == 2 else opened
        with quiet():
            file = open_forward(opened)
        with file:
            if file.frames >= _UNKNOWN_LENGTH:
                raise UnreadableAudioError(name, "its header does not state its length: convert it")
            yield file
    except UserError:
        raise
    except UnicodeEncodeError as error:
        raise UnreadableAudioError(name, "its name is not UTF-8: rename it") from error
    except (OSError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableAudioError(name, reason) from error


def read_samples(file: ForwardFile, count: int, fewer: bool = False) -> npt.NDArray[np.float32]:
    """Read the next samples of an open file, (count,), the mean of its channels.

    An MP3 file may end earlier if its header only guesses its length.

    Args:
        file: open.
        count: number of samples.
        fewer: accept a file that decodes to fewer samples.

    Raises:
        RuntimeError: the data are damaged, or there are fewer samples and not ``fewer``.
    """
    said: list[str] = []
    if file.format == "MP3":
        try:
            with quiet() as said:
                waveform = file.read(count, dtype="float32")
        except RuntimeError as error:  # "Unspecified internal error."
            raise RuntimeError("; ".join(["it is damaged", *said[:1]])) from error
    else:
        waveform = file.read(count, dtype="float32")
    file.decoded += len(waveform)
    # libsndfile stops where Ogg or MP3 data are damaged, without an error.
    if len(waveform) < count and not fewer and not file.is_guess():
        reason = (
            f"it decodes to {file.decoded} samples, but its header lists {file.frames}: it is damaged or incomplete"
        )
        raise RuntimeError("; ".join([reason, *said[:1]]))
    return waveform if waveform.ndim == 1 else waveform.mean(axis=-1)


def read_audio(path: str | os.PathLike[str], listed: bool = False) -> tuple[npt.NDArray[np.float32], int]:
    """Read a file, or a slice of an uncompressed zip file (fairseq's ``<zip>:<offset>:<length>``).

    Args:
        path: the file.
        listed: a manifest lists the length, so the header's does not count.

    Returns:
        (samples,) in [-1, 1], the mean of the channels; and the sampling rate in Hz.

    Raises:
        UnreadableAudioError: the file is missing or damaged.
    """
    with open_audio(path) as file:
        return read_samples(file, file.frames, listed), file.samplerate


def audio_name(source: object) -> str:
    """Name a file, a file object or an array in a message."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "given as an array" if hasattr(source, "ndim") else str(getattr(source, "name", "given as bytes"))


def check_length(name: str, samples: int, shortest: int) -> None:
    """Check that audio makes a frame.

    Raises:
        UnreadableAudioError: it has fewer samples than ``shortest``.
    """
    if samples < shortest:
        raise UnreadableAudioError(
            name, f"it has {samples} samples, the model needs {shortest} for one frame: leave it out"
        )


def check_samples(name: str, waveform: npt.NDArray[np.floating] | Tensor) -> None:
    """Check that samples are numbers.

    Raises:
        UnreadableAudioError: a sample is NaN or Inf.
    """
    if not bool(torch.isfinite(torch.as_tensor(waveform)).all()):
        raise UnreadableAudioError(name, "it holds NaN or Inf: replace it, or leave it out")


@dataclass(frozen=True)
class Waveforms:
    """How an encoder wants its audio. Processes that read audio ahead get a copy.

    Attributes:
        sample_rate: sampling rate in Hz.
        normalize: scale each utterance to zero mean and unit variance.
        shortest: samples that the encoder needs for one frame.
    """

    sample_rate: int
    normalize: bool
    shortest: int

    def read(self, audio: Audio, listed: bool = False) -> Tensor:
        """Read and scale one utterance, (samples,). An array must have the encoder's sampling rate.

        Args:
            audio: a file or an array.
            listed: see :func:`read_audio`.

        Raises:
            UserError: a file cannot be read or has another sampling rate; an array is not
                (samples,) or holds integers; or the audio is too short for one frame or holds NaN
                or Inf.
        """
        if isinstance(audio, str | os.PathLike):
            array, sample_rate = read_audio(audio, listed)
            if sample_rate != self.sample_rate:
                raise UnreadableAudioError(
                    audio, f"it is sampled at {sample_rate} Hz, the model takes {self.sample_rate} Hz: resample it"
                )
            waveform = torch.from_numpy(array)
        else:
            given = torch.as_tensor(np.ascontiguousarray(audio) if isinstance(audio, np.ndarray) else audio)
            if given.dim() != 1 or not given.is_floating_point():  # integers are not in [-1, 1]
                kind = str(given.dtype).removeprefix("torch.")
                raise UserError(
                    f"an audio array has the shape {tuple(given.shape)} and holds {kind}: give (samples,), "
                    f"floating-point numbers in [-1, 1]"
                )
            waveform = given.float()
        check_length(audio_name(audio), len(waveform), self.shortest)
        check_samples(audio_name(audio), waveform)
        return F.layer_norm(waveform, waveform.shape) if self.normalize else waveform

    def batch(self, audio: Sequence[Audio]) -> tuple[Tensor, Tensor]:
        """Read, scale and pad utterances.

        Returns:
            (B, samples) audio, padded with zeros; and (B, samples) bool, true where it is padded.

        Raises:
            UserError: an utterance cannot be used, see :meth:`read`; or ``audio`` is empty or not a
                list.
        """
        check_list(audio)
        if len(audio) == 0:
            raise UserError("a batch needs at least one audio file or array")
        return pad([self.read(one) for one in audio])


def check_list(audio: object) -> None:
    """Check that audio is a list of files or arrays.

    Raises:
        UserError: ``audio`` is a single file or array.
    """
    if isinstance(audio, str | os.PathLike) or getattr(audio, "ndim", 2) < 2:
        raise UserError("audio is one file or array: give a list, [audio]")


def pad(waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad (samples,) waveforms to (B, samples) with zeros, and return a mask that is true there."""
    source = torch.nn.utils.rnn.pad_sequence(list(waveforms), batch_first=True)
    ends = torch.tensor([len(waveform) for waveform in waveforms])
    return source, torch.arange(source.size(1)) >= ends.unsqueeze(1)


def length_batches(sizes: Sequence[int], max_tokens: int | None, batch_size: int | None) -> list[list[int]]:
    """Group utterances of similar length into batches.

    The longest utterances come first, so memory runs out at once or never. The order depends on
    ``sizes`` alone, so two runs make the same batches.

    Args:
        sizes: samples of each utterance.
        max_tokens: maximum of samples per batch, with padding; a longer utterance is a batch of its
            own. If both limits are None, it is :data:`DEFAULT_MAX_TOKENS`.
        batch_size: maximum of utterances per batch.

    Returns:
        indices of the utterances of each batch.

    >>> length_batches([10, 30, 20, 30], max_tokens=60, batch_size=None)
    [[1, 3], [2, 0]]
    """
    if max_tokens is None and batch_size is None:
        max_tokens = DEFAULT_MAX_TOKENS
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        current = batches[-1] if batches else []
        full = batch_size is not None and len(current) >= batch_size
        too_large = max_tokens is not None and current and sizes[current[0]] * (len(current) + 1) > max_tokens
        if not current or full or too_large:
            batches.append([index])
        else:
            current.append(index)
    return batches
