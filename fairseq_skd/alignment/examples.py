"""Chosen utterances in full: audio, text, posteriors and every spike, for figures and the report."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_skd.alignment.agreement import Agreement, compare
from fairseq_skd.alignment.comparison import Posteriors
from fairseq_skd.alignment.spikes import Floats, Frames, Spikes

SAME, PARTLY, ELSEWHERE = "same", "partly", "elsewhere"


@dataclass(frozen=True)
class Example:
    """One utterance.

    Attributes:
        index: place in the manifest, from 0.
        name: audio file, as the manifest has it.
        text: the reference.
        waveform: (samples,) in [-1, 1].
        sample_rate: in Hz.
        frame_seconds: from one frame to the next.
        posteriors: of teacher and student.
        teacher: its spikes, as :func:`spike_records` tells them.
        student: its spikes.
    """

    index: int
    name: str
    text: str
    waveform: Floats
    sample_rate: int
    frame_seconds: float
    posteriors: Posteriors
    teacher: list[dict[str, Any]]
    student: list[dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.waveform) / self.sample_rate


def frames_of(posteriors: Floats) -> Frames:
    """Frames of (T, V) posteriors; their heights are the posteriors themselves, their entropy is left at 0."""
    height = posteriors.max(axis=1)
    return Frames(posteriors.argmax(axis=1), height, np.zeros_like(height))


def spike_records(posteriors: Posteriors, symbols: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Spikes of teacher and student, in time order.

    Returns:
        of each: ``start`` and ``end`` (one past the last), ``peak`` (all in frames), ``symbol``, its ``posterior`` at
        the peak, and ``other``: whether the other side has the symbol on the ``same`` frames, ``partly`` or
        ``elsewhere``.
    """
    teacher, student = frames_of(posteriors.teacher), frames_of(posteriors.student)
    forth, back = compare(teacher, student), compare(student, teacher)
    return (
        _records(forth, forth.teacher, posteriors.teacher, symbols),
        _records(back, back.teacher, posteriors.student, symbols),
    )


def _records(agreement: Agreement, spikes: Spikes, posteriors: Floats, symbols: list[str]) -> list[dict[str, Any]]:
    others = np.where(agreement.kept, SAME, np.where(agreement.touched, PARTLY, ELSEWHERE)).tolist()
    heights = posteriors[spikes.peaks, spikes.symbols].tolist()
    columns = (spikes.starts.tolist(), spikes.ends.tolist(), spikes.peaks.tolist(), spikes.symbols.tolist())
    return [
        {
            "start": start,
            "end": end,
            "peak": peak,
            "symbol": symbols[symbol],
            "posterior": round(height, 4),
            "other": other,
        }
        for start, end, peak, symbol, height, other in zip(*columns, heights, others, strict=True)
    ]
