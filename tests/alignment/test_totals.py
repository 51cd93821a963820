import numpy as np
import pytest

from fairseq_skd.alignment.spikes import Frames, compare
from fairseq_skd.alignment.totals import Certainty, by_symbol, disagreements, offsets, utterance_counts
from tests.alignment.test_agreement import STUDENT, TEACHER
from tests.alignment.test_spikes import frames

# First: 5 of 10 frames differ, 3 of 4 spikes are lost, 2 of 4 missed, offsets 0, 1, 1. Second: all
# is equal. Third: no spikes.
PAIR = [
    compare(frames(TEACHER), frames(STUDENT)),
    compare(frames([1, 0, 2, 0, 3]), frames([1, 0, 2, 0, 3])),
    compare(frames([0, 0, 0]), frames([0, 0, 0])),
]


def test_counts_by_utterance():
    assert utterance_counts(PAIR) == {
        "frames": [10, 5, 3],
        "differing_frames": [5, 0, 0],
        "teacher_spikes": [4, 3, 0],
        "student_spikes": [3, 3, 0],
        "lost_spikes": [3, 0, 0],
        "missed_spikes": [2, 0, 0],
        "matched_spikes": [3, 3, 0],
    }


def test_rates_are_pooled_not_averaged():
    found = disagreements(utterance_counts(PAIR), 5000, 1)
    assert found["frame_disagreement"]["value"] == pytest.approx(5 / 18)
    assert found["spike_disagreement"]["value"] == pytest.approx(3 / 7)
    assert found["spike_miss"]["value"] == pytest.approx(2 / 7)
    for rate in found.values():
        assert 0 == rate["low"] <= rate["value"] <= rate["high"]
    assert found["frame_disagreement"]["high"] == 0.5  # the first utterance drawn three times: 1 in 27


def test_offsets_in_milliseconds():
    found = offsets([*PAIR, compare(frames([0, 0, 0, 7]), frames([7, 0, 0, 0]))], 20.0)
    # 0, 1, 1, 0, 0, 0, -3 frames
    assert found["matched"] == 7
    assert found["mean_ms"] == pytest.approx(20 * 5 / 7)
    assert found["median_ms"] == 0
    assert found["signed_mean_ms"] == pytest.approx(-20 / 7)
    assert found["within_ms"] == {"0": 4 / 7, "20": 6 / 7, "40": 6 / 7}
    assert found["histogram"] == [{"ms": -60.0, "spikes": 1}, {"ms": 0.0, "spikes": 4}, {"ms": 20.0, "spikes": 2}]


def test_all_utterances_of_a_speaker_are_drawn_together():
    """Two speakers with two utterances each and equal sums: every resample has the same rate."""
    counts = {name: column + column for name, column in utterance_counts(PAIR[:1] + PAIR[1:2]).items()}
    found = disagreements(counts, 500, 1, ["ann", "ann", "bob", "bob"])["frame_disagreement"]
    assert found["low"] == found["value"] == found["high"], "the speakers' sums are the same"


def test_rates_without_spikes_are_null():
    silent = PAIR[2:]
    found = disagreements(utterance_counts(silent), 100, 1)
    assert found["frame_disagreement"] == {"value": 0, "low": 0, "high": 0}
    assert found["spike_disagreement"] == {"value": None, "low": None, "high": None}
    empty = offsets(silent, 20.0)
    assert (empty["matched"], empty["mean_ms"], empty["within_ms"]["20"], empty["histogram"]) == (0, None, None, [])
    assert by_symbol(silent, ["_", "A"]) == []


def test_spikes_by_symbol():
    assert by_symbol(PAIR, ["_", "A", "B", "C", "D"]) == [
        {"symbol": "A", "teacher_spikes": 3, "lost": 1, "missed": 1},
        {"symbol": "B", "teacher_spikes": 2, "lost": 1, "missed": 1},
        {"symbol": "C", "teacher_spikes": 2, "lost": 1, "missed": 0},
    ]


def test_certainty_is_per_frame_over_all_utterances():
    long = Frames(np.array([0, 0, 1]), np.log(np.array([0.5, 0.5, 1.0], np.float32)), np.array([1, 1, 0], np.float32))
    short = Frames(np.array([2]), np.log(np.array([0.25], np.float32)), np.array([2], np.float32))
    found = Certainty.total([Certainty.of(long), Certainty.of(short)]).shares()
    assert found["blank_share"] == 0.5
    assert found["entropy_bits"] == pytest.approx(1.0)
    assert found["highest_posterior"] == pytest.approx(2.25 / 4)
