import dataclasses
import io

import numpy as np
import pytest
from matplotlib.text import Annotation

from fairseq_skd.alignment import fonts
from fairseq_skd.alignment.figures import (
    Example,
    draw_history,
    draw_offsets,
    draw_spikes,
    shown,
    spike_records,
    texts_of,
)
from fairseq_skd.alignment.spikes import Posteriors

SYMBOLS = ["<s>", "<pad>", "A", "|"]


def peaked(path, height=0.9):
    """Build (T, V) posteriors whose most probable symbols are ``path``."""
    values = np.full((len(path), len(SYMBOLS)), (1 - height) / (len(SYMBOLS) - 1), np.float32)
    values[np.arange(len(path)), path] = height
    return values


def example(teacher, student, samples=16000, text="A"):
    posteriors = Posteriors(peaked(teacher), peaked(student))
    waveform = np.zeros(samples, np.float32)
    waveform[samples // 4 : samples // 2] = np.random.default_rng(0).normal(scale=0.1, size=samples // 2 - samples // 4)
    return Example(0, "a.wav", text, waveform, 16000, 0.02, posteriors, *spike_records(posteriors, SYMBOLS))


def marks(axes):
    """List the letters over the curves with their times in seconds."""
    return [(mark.get_text(), round(mark.xy[0], 3)) for mark in axes.texts if isinstance(mark, Annotation)]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def test_spikes_by_row():
    teacher = [0] * 20 + [2, 2] + [0] * 10 + [3] + [0] * 16
    student = [0] * 21 + [2, 2] + [0] * 26
    figure = draw_spikes(example(teacher, student), ("teacher, 4 of 4", "student, 2 of 4"))
    wave, spectrogram, ours, theirs = figure.axes
    assert wave.get_title() == "A"
    assert spectrogram.get_ylim() == (0, 8)
    assert marks(ours) == [("A", 0.41), ("␣", 0.65)]
    assert marks(theirs) == [("A", 0.43)]
    assert [axes.get_title(loc="left") for axes in (ours, theirs)] == ["teacher, 4 of 4", "student, 2 of 4"]
    assert theirs.get_xlim() == (0, 1)
    assert png(figure)[:4] == b"\x89PNG"


def test_symbols_of_neighbors_with_other_heights_do_not_overlap():
    """A spike of 0.4 beside a spike of 0.9; its symbol is one level higher."""
    posteriors = peaked([0] * 20 + [2, 0, 3] + [0] * 27)
    posteriors[22] = [0.3, 0.2, 0.1, 0.4]
    one = example([0] * 50, [0] * 50)
    both = Posteriors(posteriors, posteriors)
    teacher, student = spike_records(both, SYMBOLS)
    whole = dataclasses.replace(one, posteriors=both, teacher=teacher, student=student)
    figure = draw_spikes(whole, ("t", "s"))
    figure.canvas.draw()
    first, second = (mark.get_window_extent() for mark in figure.axes[2].texts if isinstance(mark, Annotation))
    assert not first.overlaps(second)


def test_records_say_what_the_other_side_has():
    teacher, student = spike_records(Posteriors(peaked([2, 2, 0, 3, 0, 2]), peaked([2, 0, 0, 0, 0, 2])), SYMBOLS)
    assert [(spike["symbol"], spike["other"]) for spike in teacher] == [
        ("A", "partly"),
        ("|", "elsewhere"),
        ("A", "same"),
    ]
    assert [(spike["symbol"], spike["other"]) for spike in student] == [("A", "same"), ("A", "same")]
    assert teacher[0] == {"start": 0, "end": 2, "peak": 0, "symbol": "A", "posterior": 0.9, "other": "partly"}


@pytest.mark.parametrize("samples", [400, 1])
@pytest.mark.slow
def test_audio_shorter_than_a_window(samples):
    assert png(draw_spikes(example([2], [0], samples), ("t", "s")))


def test_dollar_signs_are_not_math():
    assert png(draw_spikes(example([2], [2], text="$x^$ {$"), ("t", "s")))


def test_text_that_matplotlib_cannot_write(monkeypatch):
    """matplotlib before 3.11 does not join letters: the title is the file's name."""
    arabic = example([2], [2], text="مرحبا")
    monkeypatch.setattr(fonts, "SHAPES", False)
    assert [*texts_of(arabic)] == ["a.wav", "A", "A"]
    assert draw_spikes(arabic, ("t", "s")).axes[0].get_title() == "a.wav"
    monkeypatch.setattr(fonts, "SHAPES", True)
    assert next(texts_of(arabic)) == "مرحبا"


def test_marks_and_joiners_are_seen():
    assert [shown(symbol) for symbol in ("|", "A", "\u094d", "\u200c")] == ["␣", "A", "◌\u094d", "ZWNJ"]


@pytest.mark.slow
def test_offsets_beyond_the_edge_are_in_the_last_bar():
    histogram = [{"ms": -3000.0, "spikes": 1}, {"ms": -200.0, "spikes": 2}, {"ms": 0.0, "spikes": 5}]
    offsets = {
        "matched": 10,
        "mean_ms": 1.0,
        "median_ms": 0.0,
        "signed_mean_ms": -3.0,
        "histogram": [*histogram, {"ms": 20.0, "spikes": 2}],
    }
    figure = draw_offsets(offsets, 20.0)
    (axes,) = figure.axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert bars == {-200: 0.3, 0: 0.5, 20: 0.2}
    assert "mean offset −3.0 ms" in axes.texts[0].get_text()
    assert max(axes.get_yticks()) <= 1
    assert png(figure)


def test_history_shows_agreement():
    def entry(updates, frames, spikes):
        rates = {"frame_disagreement": frames, "spike_disagreement": spikes}
        as_json = {key: {"value": v, "low": v, "high": v} for key, v in rates.items()}
        return {"updates": updates, **as_json, "teacher": {"blank_share": 0.5}, "student": {"blank_share": 1.0}}

    left, right = draw_history([entry(10, 0.4, None), entry(20, 0.1, 0.25)]).axes
    frames, spikes = (line.get_xydata().tolist() for line in left.lines)
    assert frames == [[10, 0.6], [20, 0.9]]
    assert spikes == [[20, 0.75]]  # without teacher spikes the agreement is undefined
    assert [line.get_ydata().tolist() for line in right.lines] == [[0.5, 0.5], [1.0, 1.0]]
