import json

import numpy as np
import pytest
from matplotlib.text import Annotation

from fairseq_skd.demo.figure import draw_spikes, spikes
from fairseq_skd.demo.table import exits_table, read_summary
from fairseq_skd.errors import UserError

TEACHER = {"exit_layer": 4, "layers": 4, "parameters": 1234567, "wer": 3.456, "cer": 1.2, "real_time_factor": 0.00512}
STUDENT = {"exit_layer": 2, "layers": 4, "parameters": 654321, "wer": 12.0, "cer": 4.0, "real_time_factor": 0.003}


def test_table():
    assert exits_table([TEACHER, STUDENT]).splitlines() == [
        "exit     layers  parameters  WER %  CER %  real-time factor",
        "teacher  4 of 4   1,234,567   3.46   1.20            0.0051",
        "student  2 of 4     654,321  12.00   4.00            0.0030",
    ]


def test_summary_of_infer(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(TEACHER))
    assert read_summary(tmp_path / "summary.json") == TEACHER


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_summary_that_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json .*decode again"):
        read_summary(tmp_path / "summary.json")


def peaked(path, symbols=4, heights=None):
    """(T, V) posteriors whose most probable symbols are ``path``."""
    heights = heights or [0.9] * len(path)
    values = np.empty((len(path), symbols), np.float32)
    for row, symbol, height in zip(values, path, heights, strict=True):
        row[:] = (1 - height) / (symbols - 1)
        row[symbol] = height
    return values


def test_spikes_are_runs_of_one_symbol_at_their_highest_frame():
    posteriors = peaked([0, 2, 2, 2, 0, 2, 3, 3, 0], heights=[0.9, 0.6, 0.8, 0.7, 0.9, 0.9, 0.7, 0.8, 0.9])
    assert spikes(posteriors) == [(2, 2), (5, 2), (7, 3)]


@pytest.mark.parametrize("path", [[0, 0, 0], [0]])
def test_no_spikes(path):
    assert spikes(peaked(path)) == []


def marks(axes):
    """Letters over the curves and their times in seconds."""
    return [(mark.get_text(), round(mark.xy[0], 3)) for mark in axes.texts if isinstance(mark, Annotation)]


def test_figure_has_a_spectrogram_and_a_row_an_exit(tmp_path):
    waveform = np.zeros(16000, np.float32)
    waveform[4000:12000] = np.random.default_rng(0).normal(scale=0.1, size=8000)
    posteriors = {
        "teacher, 4 layers": peaked([0] * 20 + [2, 2] + [0] * 10 + [3] + [0] * 16),
        "student, 2 layers": peaked([0] * 21 + [2, 2] + [0] * 26),
    }
    figure = draw_spikes(waveform, 16000, posteriors, ["<s>", "<pad>", "A", "'"], 0.02, "A'")
    spectrogram, teacher, student = figure.axes
    assert spectrogram.get_title() == "A'"
    assert marks(teacher) == [("A", 0.41), ("'", 0.65)]
    assert marks(student) == [("A", 0.43)]
    assert teacher.get_ylabel().startswith("teacher, 4 layers")
    figure.savefig(tmp_path / "spikes.png")
    assert (tmp_path / "spikes.png").read_bytes()[:4] == b"\x89PNG"


def test_figure_of_an_utterance_shorter_than_a_window(tmp_path):
    draw_spikes(np.zeros(400, np.float32), 16000, {"teacher": peaked([0])}, ["<s>"] * 4, 0.02, "").savefig(
        tmp_path / "a.png"
    )
