"""Frames and spikes of one exit over one utterance; NumPy, no loop over frames."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
BLANK = 0


class Frames(NamedTuple):
    """What is kept of the posteriors of one exit over one utterance.

    Attributes:
        best: (T,) the most probable symbol of each real frame.
        height: (T,) its log posterior, or anything that grows with it.
        entropy: (T,) of the whole posterior, in bits.
    """

    best: Integers
    height: Floats
    entropy: Floats

    @property
    def blanks(self) -> int:
        """Frames whose most probable symbol is blank."""
        return int((self.best == BLANK).sum())


class Spikes(NamedTuple):
    """Maximal runs of frames whose most probable symbol is one and the same non-blank symbol, N of them in time order.

    Their symbols are the collapsed (greedy) output.

    Attributes:
        symbols: (N,)
        starts: (N,) first frame.
        ends: (N,) one past the last frame.
        peaks: (N,) the frame of highest posterior, the first of equals: the spike's time.
    """

    symbols: Integers
    starts: Integers
    ends: Integers
    peaks: Integers


def find_spikes(frames: Frames) -> Spikes:
    """The spikes of one exit over one utterance."""
    best, height = frames.best, frames.height
    if not len(best):
        nothing = np.zeros(0, np.int64)
        return Spikes(nothing, nothing, nothing, nothing)
    starts = np.flatnonzero(np.diff(best, prepend=-1))  # of all runs, blank ones too; no symbol is -1
    ends = np.append(starts[1:], len(best))
    run = np.repeat(np.arange(len(starts)), ends - starts)  # (T,) which run a frame is in
    highest = np.flatnonzero(height == np.maximum.reduceat(height, starts)[run])
    peaks = highest[np.diff(run[highest], prepend=-1) > 0]  # the first of them in each run
    spike = best[starts] != BLANK
    return Spikes(best[starts][spike], starts[spike], ends[spike], peaks[spike])
