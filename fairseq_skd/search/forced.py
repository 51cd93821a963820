"""Align known units with the frames of one utterance: the best CTC path that spells them.

The states of a text of N units are blank, unit 1, blank, unit 2, ..., unit N, blank. A path starts
in one of the first two and ends in one of the last two. From frame to frame it stays, goes to the
next state, or jumps over a blank between two different units. In a long pause a model may say the
word boundary ``|`` twice, where a known text has it once: there the blanks may be boundaries, too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fairseq_skd.errors import UserError
from fairseq_skd.files.units import frames_needed

_LEAST = -1e6  # stands for the logarithm of 0, so that every path has a score
_MOST_CELLS = 2_000_000_000  # frames x states; one byte each


class Alignment(NamedTuple):
    """The spikes of N units in time order.

    Attributes:
        starts: (N,) first frame of each unit.
        ends: (N,) one past its last frame.
        peaks: (N,) its frame with the highest posterior, the first of equals.
        heights: (N,) posterior of the unit on that frame.
        means: (N,) mean of its posteriors from ``starts`` to ``ends``.
        score: log probability of the whole path, with its blanks.
    """

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    peaks: npt.NDArray[np.int64]
    heights: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    score: float


def align_units(
    log_probs: npt.ArrayLike, units: Sequence[int], blank: int = 0, boundary: int | None = None
) -> Alignment:
    """Find the most probable CTC path that spells ``units``, and the spikes on it.

    For the units of greedy decoding, this is the path of the best symbol of each frame.

    >>> log_probs = np.log([[.1, .8, .1], [.2, .7, .1], [.9, .05, .05], [.1, .3, .6]])  # (T, V)
    >>> found = align_units(log_probs, [1, 2])
    >>> found.starts.tolist(), found.ends.tolist(), found.peaks.tolist()
    ([0, 3], [2, 4], [0, 3])
    >>> found.heights.round(3).tolist(), found.means.round(3).tolist(), round(found.score, 3)
    ([0.8, 0.6], [0.75, 0.6], -1.196)

    Args:
        log_probs: (T, V) log posteriors of one utterance.
        units: N indices, without blanks.
        blank: index of the blank.
        boundary: index of the word boundary, which may repeat at the ends and around itself; None:
            no unit may repeat.

    Raises:
        UserError: the text needs more frames than there are, or text and audio are too long.
    """
    values = np.maximum(np.asarray(log_probs, np.float64), _LEAST)  # (T, V)
    needed = frames_needed(units)
    if needed > len(values):
        raise UserError(
            f"the text has {len(units)} units and needs {needed} frames, the audio has {len(values)}: give the text of "
            f"this audio"
        )
    if len(values) * (2 * len(units) + 1) > _MOST_CELLS:
        raise UserError(
            f"a text of {len(units)} units and audio of {len(values)} frames are too long to align at once: cut both"
        )
    states = np.full(2 * len(units) + 1, blank)
    states[1::2] = units
    emissions = values[:, states]  # (T, states)
    if boundary is not None:
        free = np.array([boundary, *units, boundary]) == boundary
        beside = 2 * np.flatnonzero(free[:-1] | free[1:])  # blanks before and after a boundary, and at the ends
        emissions[:, beside] = np.maximum(emissions[:, beside], values[:, [boundary]])
    path, score = _best_path(emissions, states)
    return _spikes(values, np.asarray(units, np.int64), path, score)


def _best_path(
    emissions: npt.NDArray[np.float64], states: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], float]:
    """Return the state of each frame (T,) on the best path, and the path's log probability."""
    frames, size = emissions.shape
    if not frames:
        return np.zeros(0, np.int64), 0.0
    # Two columns before the states: the start, from which the first two states can be reached.
    now = np.full(size + 2, -np.inf)
    now[1] = 0.0
    following = np.full(size + 2, -np.inf)
    jump = np.full(size // 2, -np.inf)  # of the units: 0 where the blank before may be left out
    jump[(np.diff(states[1::2], prepend=-1) != 0)] = 0.0
    back = np.zeros((frames, size), np.uint8)  # states to go back: 0, 1 or 2
    moved = np.empty(size, bool)
    jumped = np.empty(size // 2)
    for frame in range(frames):
        stay, step, best, taken = now[2:], now[1:-1], following[2:], back[frame]
        np.greater(step, stay, out=moved)
        taken[:] = moved
        np.maximum(stay, step, out=best)
        np.add(now[1:-2:2], jump, out=jumped)
        odd = best[1::2]
        taken[1::2][jumped > odd] = 2
        np.maximum(odd, jumped, out=odd)
        best += emissions[frame]
        now, following = following, now
        now[1] = -np.inf
        following[1] = -np.inf
    last = size - 1 if size == 1 or now[-1] > now[-2] else size - 2
    score = float(now[last + 2])
    path = np.empty(frames, np.int64)
    state = last
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= int(back[frame, state])
    return path, score


def _spikes(
    values: npt.NDArray[np.float64], units: npt.NDArray[np.int64], path: npt.NDArray[np.int64], score: float
) -> Alignment:
    """Find first frame, end and peak of each unit on a path of states."""
    if not len(units):
        none, nothing = np.zeros(0, np.int64), np.zeros(0)
        return Alignment(none, none, none, nothing, nothing, score)
    frames = np.flatnonzero(path % 2)  # of units, not blanks
    unit = path[frames] // 2  # (frames,) which unit, from 0 to N - 1
    begins = np.flatnonzero(np.diff(unit, prepend=-1))
    sizes = np.diff(begins, append=len(frames))
    posteriors = np.exp(values[frames, units[unit]])
    heights = np.maximum.reduceat(posteriors, begins)
    highest = np.flatnonzero(posteriors == heights[unit])
    peaks = frames[highest[np.diff(unit[highest], prepend=-1) > 0]]  # the first of equals
    starts = frames[begins]
    return Alignment(starts, starts + sizes, peaks, heights, np.add.reduceat(posteriors, begins) / sizes, score)
