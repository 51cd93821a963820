"""Draw figures: spikes over waveform and spectrogram, spike offsets, agreement over a run."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from fairseq_skd.alignment.fonts import can_be_written, is_mark, standing_alone
from fairseq_skd.alignment.spikes import BLANK, Agreement, Floats, Frames, Posteriors, Spikes, compare

SAME, PARTLY, ELSEWHERE = "same", "partly", "elsewhere"


@dataclass(frozen=True)
class Example:
    """An utterance to draw.

    Attributes:
        index: index in the manifest, from 0.
        name: audio file, as in the manifest.
        text: the reference.
        waveform: (samples,) in [-1, 1].
        sample_rate: in Hz.
        frame_seconds: seconds from one frame to the next.
        posteriors: posteriors of teacher and student.
        teacher: spikes of the teacher, from :func:`spike_records`.
        student: spikes of the student.
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
        """Length of the audio in seconds."""
        return len(self.waveform) / self.sample_rate


def frames_of(posteriors: Floats) -> Frames:
    """Reduce (T, V) posteriors to frames; heights are posteriors, entropies are left at 0."""
    height = posteriors.max(axis=1)
    return Frames(posteriors.argmax(axis=1), height, np.zeros_like(height))


def spike_records(posteriors: Posteriors, symbols: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """List the spikes of teacher and student, in time order.

    Returns:
        two lists with, per spike: ``start``, ``end`` (one past the last) and ``peak`` in frames,
        ``symbol``, its ``posterior`` at the peak, and ``other``: whether the other side has the
        symbol on all (``same``), some (``partly``) or none (``elsewhere``) of these frames.
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


logging.getLogger("matplotlib").setLevel(logging.WARNING)  # fairseq's import sets DEBUG: a line per font


# Okabe and Ito's colors, which color-blind readers can distinguish.
TEACHER, STUDENT = "#0072B2", "#D55E00"
_WINDOW, _HOP = 400, 80  # samples of the spectrogram at 16 kHz: 25 ms every 5 ms
_FARTHEST_MS = 200
DPI = 200


def shown(symbol: str) -> str:
    """Write a symbol that cannot be read alone in another way, such as | or a combining mark.

    >>> shown("|"), shown("A")
    ('␣', 'A')
    """
    return "␣" if symbol == "|" else standing_alone(symbol)


def texts_of(example: Example) -> Iterator[str]:
    """Yield the texts in the figure of an example, for :mod:`~fairseq_skd.alignment.fonts`."""
    yield _title(example)
    yield from (shown(spike["symbol"]) for spike in (*example.teacher, *example.student))


def _title(example: Example) -> str:
    return example.text if can_be_written(example.text) else example.name


def stagger(places: Sequence[float], room: float, levels: int = 3) -> list[int]:
    """Choose the level on which each symbol is written, so that neighbors do not overlap.

    Args:
        places: increasing positions.
        room: width of one symbol, in the unit of ``places``.
        levels: number of levels; longer crowds start again at the lowest.

    Returns:
        one level per symbol; 0 is the lowest.
    """
    found: list[int] = []
    for number, place in enumerate(places):
        crowded = number > 0 and place - places[number - 1] < room
        found.append((found[-1] + 1) % levels if crowded else 0)
    return found


def breadth(symbols: Iterable[str]) -> float:
    """Return how much broader than Latin letters the symbols are: 1.4 if one is East Asian.

    >>> breadth("AB"), breadth("你A")
    (1.0, 1.4)
    """
    return 1.4 if any(unicodedata.east_asian_width(sign) in "WF" for symbol in symbols for sign in symbol) else 1.0


def draw_spikes(example: Example, names: tuple[str, str]) -> Figure:
    """Draw waveform, spectrogram, and the posteriors of both exits with the symbol of each spike.

    The marker of a spike says whether the other exit has its symbol on all of its frames (full), on
    some (hollow), or on none (cross). The teacher's spikes are vertical lines through all rows. The
    title is the text, or the file's name where matplotlib could not write the text.

    Args:
        example: the utterance.
        names: names of teacher and student.
    """
    width = float(np.clip(2.2 * example.seconds, 7, 24))
    figure = _figure(width, 5.6)
    rows = figure.subplots(4, 1, sharex=True, height_ratios=[0.5, 1.1, 1, 1])
    _draw_waveform(rows[0], example)
    _draw_spectrogram(rows[1], example)
    sides = (
        (names[0], example.posteriors.teacher, example.teacher, TEACHER),
        (names[1], example.posteriors.student, example.student, STUDENT),
    )
    for axes, (name, posteriors, spikes, colour) in zip(rows[2:], sides, strict=True):
        room = 0.11 * breadth(spike["symbol"] for spike in spikes) * example.seconds / width
        levels = stagger([spike["peak"] * example.frame_seconds for spike in spikes], room)
        _draw_exit(axes, name, posteriors, [*zip(spikes, levels, strict=True)], colour, example.frame_seconds)
    for axes in rows:
        for spike in example.teacher:
            axes.axvline((spike["peak"] + 0.5) * example.frame_seconds, color=TEACHER, linewidth=0.5, alpha=0.35)
    rows[0].set_title(_title(example), fontsize=10, parse_math=False)
    rows[-1].set_xlabel("time (s)")
    rows[-1].set_xlim(0, example.seconds)
    rows[-1].legend(
        handles=_marks(), loc="upper center", bbox_to_anchor=(0.5, -0.42), ncols=4, frameon=False, fontsize=8
    )
    return figure


def _marks() -> list[Line2D]:
    kinds = (
        ("the other exit has this symbol on all frames of the spike", "full", "o"),
        ("on some", "none", "o"),
        ("on none", "full", "x"),
    )
    marks = [
        Line2D([], [], color="0.3", marker=marker, fillstyle=style, linestyle="", label=label)  # type: ignore[arg-type]
        for label, style, marker in kinds
    ]
    return [*marks, Line2D([], [], color="0.75", linewidth=0.9, label="blank")]


def _draw_waveform(axes: Axes, example: Example) -> None:
    """Draw lowest and highest sample of up to 2,000 stretches, so long audio stays cheap."""
    stretches = np.array_split(example.waveform, min(2000, len(example.waveform)))
    low, high = [part.min() for part in stretches], [part.max() for part in stretches]
    times = (np.arange(len(stretches)) + 0.5) * example.seconds / len(stretches)
    axes.fill_between(times, low, high, color="0.35", linewidth=0.3)
    highest = max(float(np.abs(example.waveform).max()), 1e-4)
    axes.set(ylim=(-1.05 * highest, 1.05 * highest), yticks=[], ylabel="wave")


def _draw_spectrogram(axes: Axes, example: Example) -> None:
    scale = example.sample_rate / 16000
    window = max(2, round(_WINDOW * scale))
    # Pad to two windows and add faint noise: matplotlib fails on less, and on digital silence.
    padded = np.pad(example.waveform, (0, max(0, 2 * window - len(example.waveform))))
    padded = padded / max(float(np.abs(padded).max()), 1e-4)
    noise = np.random.default_rng(0).normal(scale=1e-5, size=padded.shape)
    axes.specgram(
        padded + noise,
        NFFT=window,
        Fs=example.sample_rate / 1000,
        noverlap=window - max(1, round(_HOP * scale)),
        pad_to=1024,
        xextent=(0, len(padded) / example.sample_rate),
        cmap="Greys",
        vmin=-100,
        vmax=-25,
    )
    axes.set(ylabel="kHz", ylim=(0, example.sample_rate / 2000))


def _draw_exit(
    axes: Axes,
    name: str,
    posteriors: Floats,
    spikes: Sequence[tuple[Mapping[str, Any], int]],
    colour: str,
    frame_seconds: float,
) -> None:
    times = (np.arange(len(posteriors)) + 0.5) * frame_seconds  # the middle of each frame
    axes.plot(times, posteriors[:, BLANK], color="0.75", linewidth=0.9)
    highest = np.delete(posteriors, BLANK, axis=1).max(axis=1)
    axes.fill_between(times, highest, color=colour, alpha=0.25, linewidth=0)
    axes.plot(times, highest, color=colour, linewidth=1.0)
    for spike, level in spikes:
        time, height = times[spike["peak"]], spike["posterior"]
        marker, face = ("x", colour) if spike["other"] == ELSEWHERE else ("o", colour)
        if spike["other"] not in (SAME, ELSEWHERE):
            face = "white"
        axes.plot(time, height, marker=marker, markersize=4.5, markerfacecolor=face, color=colour, clip_on=False)
        place: dict[str, Any] = {"xytext": (0, 5 + 8 * level), "textcoords": "offset points", "ha": "center"}
        if is_mark(spike["symbol"]):  # its circle from the font of the mark
            place["family"] = matplotlib.rcParams["font.family"][::-1]
        # Symbols start at the top of the axis, not at their spike: else neighbors overlap.
        axes.annotate(shown(spike["symbol"]), (time, 1.0), fontsize=9, parse_math=False, **place)
    axes.set(ylim=(0, 1.65), yticks=[0, 0.5, 1], ylabel="posterior")
    axes.set_title(name, loc="left", fontsize=9, color=colour)


def draw_offsets(offsets: Mapping[str, Any], frame_ms: float) -> Figure:
    """Draw a histogram of signed spike offsets, one bar per frame; the outer bars are open-ended.

    Args:
        offsets: from :func:`~fairseq_skd.alignment.totals.offsets`; at least one spike matched.
        frame_ms: milliseconds from one frame to the next.
    """
    farthest = int(_FARTHEST_MS // frame_ms)
    places = np.arange(-farthest, farthest + 1)
    spikes = np.zeros(len(places))
    for bar in offsets["histogram"]:
        spikes[int(np.clip(round(bar["ms"] / frame_ms), -farthest, farthest)) + farthest] += bar["spikes"]
    figure = _figure(5, 3.2)
    axes = figure.subplots()
    bars = axes.bar(places * frame_ms, spikes / offsets["matched"], width=0.85 * frame_ms, color=STUDENT)
    bars[farthest].set_color(TEACHER)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set(
        xlabel="spike offset, student minus teacher (ms)",
        ylabel="matched spikes",
        xlim=(-(farthest + 1) * frame_ms, (farthest + 1) * frame_ms),
    )
    ends = [-_FARTHEST_MS, -_FARTHEST_MS // 2, 0, _FARTHEST_MS // 2, _FARTHEST_MS]
    axes.set_xticks(ends, [f"≤ −{_FARTHEST_MS}", *(f"{end}".replace("-", "−") for end in ends[1:-1]), f"≥ {ends[-1]}"])
    words = (
        f"{offsets['matched']:,} matched spikes\n"
        f"mean |offset| {offsets['mean_ms']:.1f} ms, median {offsets['median_ms']:.0f} ms\n"
        f"mean offset {offsets['signed_mean_ms']:+.1f} ms".replace("-", "−")
    )
    axes.text(0.98, 0.96, words, transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_ylim(0, 1.4 * max(bar.get_height() for bar in bars))  # room for the words
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
    return figure


def draw_history(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw frame agreement, spike agreement (with intervals) and blank shares against updates.

    Args:
        history: as in ``align.json``, in order of updates.
    """
    updates = [entry["updates"] for entry in history]
    figure = _figure(8, 3.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for key, name, colour in (
        ("frame_disagreement", "frames", TEACHER),
        ("spike_disagreement", "teacher's spikes", STUDENT),
    ):
        known = [(entry["updates"], entry[key]) for entry in history if entry[key]["value"] is not None]
        if known:
            times, rates = [time for time, _ in known], [rate for _, rate in known]
            left.plot(times, [1 - rate["value"] for rate in rates], "o-", markersize=4, color=colour, label=name)
            low, high = [1 - rate["high"] for rate in rates], [1 - rate["low"] for rate in rates]
            left.fill_between(times, low, high, color=colour, alpha=0.2, linewidth=0)
    for who, colour, style in (("teacher", TEACHER, "o-"), ("student", STUDENT, "s--")):
        shares = [entry[who]["blank_share"] for entry in history]
        right.plot(updates, shares, style, markersize=4, color=colour, label=who)
    for axes, title in ((left, "agreement of teacher and student"), (right, "blank frames")):
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="updates", ylim=(-0.02, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
