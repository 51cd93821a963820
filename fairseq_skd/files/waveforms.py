"""Read audio for the encoder: check the sampling rate, scale each utterance, pad a batch."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import torch
import torch.nn.functional as F
from fairseq.data.audio.audio_utils import parse_path, read_from_stored_zip
from torch import Tensor

from fairseq_skd.errors import UserError

DEFAULT_MAX_TOKENS = 4_000_000  # samples per batch; fairseq's infer has the same default
Audio = str | os.PathLike[str] | npt.NDArray[np.floating] | Tensor


class UnreadableAudioError(UserError):
    """An audio file that cannot be used.

    Attributes:
        reason: what is wrong, without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"audio file {os.fspath(path)} cannot be read: {reason}")
        self.reason = reason


def read_audio(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.float32], int]:
    """Read a file, or a slice of an uncompressed zip file (fairseq's ``<zip>:<offset>:<length>``).

    Returns:
        (samples,) in [-1, 1], the mean of the channels; and the sampling rate in Hz.

    Raises:
        UnreadableAudioError: the file is missing or damaged.
    """
    try:
        file, slice_ = parse_path(os.fspath(path))
        if not os.path.exists(file):  # libsndfile says "System error"
            raise FileNotFoundError("it does not exist")
        source = io.BytesIO(read_from_stored_zip(file, *slice_)) if len(slice_) == 2 else file
        waveform, sample_rate = soundfile.read(source, dtype="float32")
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        raise UnreadableAudioError(path, " ".join(str(error).split()) or type(error).__name__) from error
    return waveform if waveform.ndim == 1 else waveform.mean(axis=-1), sample_rate


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

    def read(self, audio: Audio) -> Tensor:
        """Read and scale one utterance, (samples,). An array must have the encoder's sampling rate.

        Raises:
            UserError: a file cannot be read or has another sampling rate; an array is not
                (samples,) or holds integers; or the audio is too short for one frame or holds NaN
                or Inf.
        """
        if isinstance(audio, str | os.PathLike):
            array, sample_rate = read_audio(audio)
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
        name = audio if isinstance(audio, str | os.PathLike) else "given as an array"
        if len(waveform) < self.shortest:
            reason = f"it has {len(waveform)} samples, the model needs {self.shortest} for one frame: leave it out"
            raise UnreadableAudioError(name, reason)
        if not bool(torch.isfinite(waveform).all()):
            raise UnreadableAudioError(name, "it holds NaN or Inf: replace it, or leave it out")
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
