import itertools

import editdistance
import numpy as np
import pytest
import torch

from fairseq_skd.alignment.spikes import compare, find_spikes, match_spikes
from fairseq_skd.search.greedy import greedy_units
from tests.alignment.test_spikes import brute_force, frames

#          0  1  2  3  4  5  6  7  8  9
TEACHER = [0, 1, 1, 0, 2, 0, 3, 3, 0, 1]
STUDENT = [0, 1, 1, 1, 0, 2, 0, 3, 0, 0]


def test_by_hand():
    found = compare(frames(TEACHER), frames(STUDENT))
    assert found.frames == 10
    assert found.differing == 5  # frames 3, 4, 5, 6, 9
    # Symbol 1 on frames 1-2: the student has it on both (and on a third). Symbol 2: on another
    # frame. Symbol 3: on one of two. The last 1: not at all.
    assert found.kept.tolist() == [True, False, False, False]
    assert found.touched.tolist() == [True, False, True, False]
    assert found.matched.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert found.offsets.tolist() == [0, 1, 1]


def test_offsets_are_between_peaks():
    """Both runs begin at one frame, but their peaks are two apart; the student is earlier."""
    teacher = frames([0, 1, 1, 1, 0], [1, 0.5, 0.6, 0.9, 1])
    student = frames([0, 1, 1, 1, 0], [1, 0.9, 0.6, 0.5, 1])
    found = compare(teacher, student)
    assert found.kept.tolist() == [True]
    assert found.offsets.tolist() == [-2]


def test_two_spikes_in_one_run_of_the_student():
    """The teacher has 1 twice, the student one run over all frames: both are kept, one matches."""
    found = compare(frames([1, 0, 1]), frames([1, 1, 1]))
    assert found.kept.tolist() == [True, True]
    assert len(found.matched) == 1


@pytest.mark.parametrize("silent", ["teacher", "student"])
def test_one_side_has_no_spike(silent):
    sides = {"teacher": frames(TEACHER), "student": frames(STUDENT), silent: frames([0] * 10)}
    found = compare(**sides)
    assert len(found.matched) == len(found.offsets) == 0
    assert found.kept.tolist() == ([] if silent == "teacher" else [False] * 4)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="teacher has 2 frames, student 3"):
        compare(frames([0, 1]), frames([0, 1, 0]))


@pytest.mark.parametrize(
    ("teacher", "student", "pairs"),
    [
        ([1, 2, 3], [1, 2, 3], [[0, 0], [1, 1], [2, 2]]),
        ([1, 2, 3], [1, 3], [[0, 0], [2, 1]]),  # a deletion
        ([1, 3], [1, 2, 3], [[0, 0], [1, 2]]),  # an insertion
        ([1, 2, 3], [1, 4, 3], [[0, 0], [2, 2]]),  # a substitution is no match
        ([1, 2], [3, 4, 5], []),
        ([], [], []),
    ],
)
def test_matching_by_hand(teacher, student, pairs):
    assert match_spikes(teacher, student).tolist() == pairs


@pytest.mark.parametrize("seed", range(30))
def test_against_a_walk_over_the_frames(seed):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 50))
    teacher = rng.integers(0, 4, size=length)
    student = np.where(rng.random(length) < 0.7, teacher, rng.integers(0, 4, size=length))
    heights = rng.random((2, length)).astype(np.float32)
    found = compare(frames(teacher, heights[0]), frames(student, heights[1]))

    assert found.differing == sum(a != b for a, b in zip(teacher, student, strict=True))
    spikes, others = brute_force(teacher, heights[0]), brute_force(student, heights[1])
    assert found.kept.tolist() == [all(student[t] == s for t in range(a, b)) for s, a, b, _ in spikes]
    assert found.touched.tolist() == [any(student[t] == s for t in range(a, b)) for s, a, b, _ in spikes]
    assert found.offsets.tolist() == [others[j][3] - spikes[i][3] for i, j in found.matched]


@pytest.mark.parametrize("seed", range(20))
def test_the_alignment_is_a_shortest_one(seed):
    """The unmatched symbols, gap by gap, cost the Levenshtein distance of another library."""
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(1, 4, size=rng.integers(0, 15)).tolist() for _ in range(2))
    pairs = match_spikes(a, b).tolist()
    assert all(a[i] == b[j] for i, j in pairs)
    ends = [[-1, -1], *pairs, [len(a), len(b)]]
    gaps = [(i2 - i1 - 1, j2 - j1 - 1) for (i1, j1), (i2, j2) in itertools.pairwise(ends)]
    assert all(i >= 0 and j >= 0 for i, j in gaps)
    assert sum(max(gap) for gap in gaps) == editdistance.eval(a, b)


def test_the_collapsed_output_is_greedy_decoding():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 5))
    best = logits.argmax(axis=1)
    units = greedy_units(torch.from_numpy(logits)[:, None], torch.tensor([40]))[0]
    assert find_spikes(frames(best)).symbols.tolist() == units
