import numpy as np
import pytest

from fairseq_skd.alignment.spikes import Frames, find_spikes


def frames(best, height=None):
    height = np.ones(len(best)) if height is None else height
    return Frames(np.array(best, np.int64), np.array(height, np.float32), np.zeros(len(best), np.float32))


def brute_force(best, height):
    """Find (symbol, start, end, peak) frame by frame."""
    found, t = [], 0
    while t < len(best):
        end = t
        while end < len(best) and best[end] == best[t]:
            end += 1
        if best[t] != 0:
            found.append((best[t], t, end, max(range(t, end), key=lambda i: (height[i], -i))))
        t = end
    return found


def test_spikes_by_hand():
    # frame  0    1    2    3    4    5    6    7    8
    best = [0, 2, 2, 2, 0, 2, 3, 3, 0]
    height = [0.9, 0.6, 0.8, 0.7, 0.9, 0.9, 0.7, 0.8, 0.9]
    spikes = find_spikes(frames(best, height))
    assert spikes.symbols.tolist() == [2, 2, 3]  # the collapsed output
    assert spikes.starts.tolist() == [1, 5, 6]
    assert spikes.ends.tolist() == [4, 6, 8]
    assert spikes.peaks.tolist() == [2, 5, 7]


def test_the_peak_is_the_first_of_equally_high_frames():
    assert find_spikes(frames([0, 4, 4, 4], [1, 0.5, 0.8, 0.8])).peaks.tolist() == [2]


def test_each_run_has_its_own_peak():
    """Neighboring runs with equal heights."""
    assert find_spikes(frames([1, 1, 2, 2], [0.3, 0.8, 0.8, 0.3])).peaks.tolist() == [1, 2]


@pytest.mark.parametrize("best", [[], [0], [0, 0, 0]])
def test_no_spikes(best):
    spikes = find_spikes(frames(best))
    assert [column.tolist() for column in spikes] == [[], [], [], []]


def test_spikes_reach_both_ends():
    spikes = find_spikes(frames([5, 0, 5, 5]))
    assert (spikes.starts.tolist(), spikes.ends.tolist()) == ([0, 2], [1, 4])


@pytest.mark.parametrize("seed", range(30))
def test_against_a_walk_over_the_frames(seed):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 60))
    best = rng.integers(0, 4, size=length) * (rng.random(length) < 0.7)
    height = rng.integers(1, 5, size=length) / 4  # many are equal
    spikes = find_spikes(frames(best, height))
    assert list(zip(*(column.tolist() for column in spikes), strict=True)) == brute_force(best.tolist(), height)


def test_an_hour_of_frames_at_once():
    """Linear time, without a Python loop: 180,000 frames, a spike every third one."""
    best = np.tile([0, 1, 1, 0, 2, 0], 30_000)
    height = np.tile([1, 0.5, 0.6, 1, 0.7, 1], 30_000)
    spikes = find_spikes(frames(best, height))
    assert len(spikes.symbols) == 60_000
    assert (spikes.peaks[::2] % 6 == 2).all() and (spikes.peaks[1::2] % 6 == 4).all()
