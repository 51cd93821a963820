"""Spikes of teacher and student over one utterance, as a figure.

``python -m fairseq_skd.demo.figure CHECKPOINT --data MANIFEST_DIR --out spikes.png`` draws an utterance of a manifest.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairseq_skd.demo.folders import make_folder
from fairseq_skd.demo.posteriors import ExitPosteriors, posteriors_of_utterance
from fairseq_skd.errors import run_command
from fairseq_skd.files import replacing
from fairseq_skd.infer import quieten_libraries

BLANK = 0
_WINDOW = 512  # samples of the spectrogram's window


def spikes(posteriors: npt.NDArray[np.float32]) -> list[tuple[int, int]]:
    """The spikes of one utterance: runs of frames whose most probable symbol is one and the same non-blank.

    Args:
        posteriors: (T, V), the blank at index 0.

    Returns:
        (frame, symbol) of each run, at its frame of highest posterior, in time order.
    """
    best = posteriors.argmax(axis=1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(starts[1:], len(best))
    return [
        (int(start + posteriors[start:end, best[start]].argmax()), int(best[start]))
        for start, end in zip(starts, ends, strict=True)
        if best[start] != BLANK
    ]


def draw_spikes(
    waveform: npt.NDArray[np.float32],
    sample_rate: int,
    posteriors: Mapping[str, npt.NDArray[np.float32]],
    symbols: Sequence[str],
    frame_seconds: float,
    title: str,
) -> Figure:
    """A spectrogram, and under it the posteriors of each exit with the symbol of each spike.

    Args:
        waveform: (samples,) in [-1, 1].
        sample_rate: in Hz.
        posteriors: name of an exit -> (T, V), the blank at index 0.
        symbols: the V symbols.
        frame_seconds: from one frame to the next.
        title: stands above the spectrogram.
    """
    figure = Figure(figsize=(12, 3 + 1.8 * len(posteriors)), layout="constrained")
    FigureCanvasAgg(figure)  # needs no screen
    rows = figure.subplots(1 + len(posteriors), 1, sharex=True, height_ratios=[1.4] + [1.0] * len(posteriors))
    _draw_spectrogram(rows[0], waveform, sample_rate)
    rows[0].set_title(title)
    for axes, (name, values) in zip(rows[1:], posteriors.items(), strict=True):
        _draw_exit(axes, name, values, symbols, frame_seconds)
    rows[-1].set_xlabel("time (s)")
    rows[-1].set_xlim(0, len(waveform) / sample_rate)
    return figure


def _draw_spectrogram(axes: Axes, waveform: npt.NDArray[np.float32], sample_rate: int) -> None:
    # At least two windows, and never digital silence: matplotlib's logarithm takes neither.
    padded = np.pad(waveform, (0, max(0, 2 * _WINDOW - len(waveform))))
    noise = np.random.default_rng(0).normal(scale=1e-5, size=padded.shape)
    axes.specgram(
        padded + noise, NFFT=_WINDOW, Fs=sample_rate, noverlap=_WINDOW // 2, cmap="magma", vmin=-110, vmax=-30
    )
    axes.set_ylabel("frequency (Hz)")


def _draw_exit(
    axes: Axes, name: str, posteriors: npt.NDArray[np.float32], symbols: Sequence[str], frame_seconds: float
) -> None:
    times = (np.arange(len(posteriors)) + 0.5) * frame_seconds  # the middle of each frame
    axes.plot(times, posteriors[:, BLANK], color="0.8", linewidth=0.8)
    for symbol in range(1, posteriors.shape[1]):
        if posteriors[:, symbol].max() > 0.02:  # the others lie on the axis
            axes.plot(times, posteriors[:, symbol], linewidth=1.2)
    for frame, symbol in spikes(posteriors):
        place = (times[frame], posteriors[frame, symbol])
        axes.annotate(symbols[symbol], place, xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylim(0, 1.2)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel(f"{name}\nposterior")


def draw_utterance(utterance: ExitPosteriors, text: str) -> Figure:
    """The figure of an utterance: teacher first, then each student, with ``text`` as its title."""
    depth = max(utterance.posteriors)
    named = {
        f"teacher, {layer} layers" if layer == depth else f"student, {layer} layers": values
        for layer, values in utterance.posteriors.items()
    }
    return draw_spikes(
        utterance.waveform, utterance.sample_rate, named, utterance.symbols, utterance.frame_seconds, text
    )


def main() -> None:
    """Read the command line and write the figure."""
    parser = argparse.ArgumentParser(prog="python -m fairseq_skd.demo.figure", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="fine-tuned with model skd_ctc")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of <subset>.tsv and labels")
    parser.add_argument("--subset", default="test", help="default: test")
    parser.add_argument("--utterance", type=int, default=0, help="its place in the manifest, from 0 (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="the figure to write")
    arguments = parser.parse_args()
    make_folder(arguments.out.parent)
    utterance = posteriors_of_utterance(arguments.checkpoint, arguments.data, arguments.subset, arguments.utterance)
    with replacing(arguments.out) as beside:
        draw_utterance(utterance, utterance.text).savefig(beside, dpi=120)
    print(arguments.out)


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.demo.figure", main))
