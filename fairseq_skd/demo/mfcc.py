"""The features that HuBERT's first targets are clusters of: 13 MFCCs a frame, their deltas, and the deltas' deltas."""

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]

FRAME_RATE = 100.0  # frames a second
CEPSTRA = 13


def mfcc(waveform: npt.NDArray[np.float32], sample_rate: int) -> Features:
    """MFCCs of ``waveform`` (samples,) in [-1, 1]: (T, 13), with 25 ms windows every 10 ms.

    A frame lies wholly within the audio, so frame 2t starts on the sample where HuBERT's frame t starts. Audio of less
    than 25 ms has none: (0, 13).
    """
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.samp_freq = sample_rate
    options.frame_opts.dither = 0.0  # the same audio has the same labels
    options.frame_opts.snip_edges = True
    options.num_ceps = CEPSTRA
    options.use_energy = False
    computer = kaldi_native_fbank.OnlineMfcc(options)
    computer.accept_waveform(sample_rate, (waveform * 32768.0).tolist())  # Kaldi's scale: 16-bit integers
    computer.input_finished()
    frames = [computer.get_frame(t) for t in range(computer.num_frames_ready)]
    return np.stack(frames).astype(np.float32) if frames else np.zeros((0, CEPSTRA), np.float32)


def deltas(features: Features, reach: int = 2) -> Features:
    """The slope of each feature over time, (T, C) -> (T, C): the line that fits ``2 * reach + 1`` frames best.

    ``d[t] = sum_n n * (c[t + n] - c[t - n]) / (2 * sum_n n^2)`` for n from 1 to ``reach``; beyond the ends the first
    and the last frame go on.
    """
    length = len(features)
    if length == 0:
        return features.copy()
    padded = np.pad(features, ((reach, reach), (0, 0)), mode="edge")
    slope = np.zeros_like(features)
    for n in range(1, reach + 1):
        slope += n * (padded[reach + n : reach + n + length] - padded[reach - n : reach - n + length])
    return slope / np.float32(2 * sum(n * n for n in range(1, reach + 1)))


def mfcc_with_deltas(waveform: npt.NDArray[np.float32], sample_rate: int) -> Features:
    """MFCCs, their deltas and the deltas' deltas of ``waveform`` (samples,): (T, 39)."""
    static = mfcc(waveform, sample_rate)
    first = deltas(static)
    return np.concatenate([static, first, deltas(first)], axis=1)
