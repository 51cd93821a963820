"""Find the spikes of an exit, and compare the spikes of two exits (docs/alignment.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fairseq_skd.errors import UserError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
BLANK = 0


class Posteriors(NamedTuple):
    """(T, V) posteriors of one utterance."""

    teacher: Floats
    student: Floats


class Frames(NamedTuple):
    """Posteriors of one exit on one utterance, reduced to three numbers per frame.

    Attributes:
        best: (T,) the most probable symbol of each real frame.
        height: (T,) log posterior of that symbol, or a number that grows with it.
        entropy: (T,) entropy of the whole posterior, in bits.
    """

    best: Integers
    height: Floats
    entropy: Floats

    @property
    def blanks(self) -> int:
        """Number of frames whose most probable symbol is blank."""
        return int((self.best == BLANK).sum())


class Spikes(NamedTuple):
    """N spikes in time order: maximal runs of frames with the same most probable symbol, not blank.

    Their symbols are the collapsed (greedy) output.

    Attributes:
        symbols: (N,)
        starts: (N,) first frame.
        ends: (N,) one past the last frame.
        peaks: (N,) the frame with the highest posterior, the first of equals: the spike's time.
    """

    symbols: Integers
    starts: Integers
    ends: Integers
    peaks: Integers


def find_spikes(frames: Frames) -> Spikes:
    """Find the spikes of one exit on one utterance."""
    best, height = frames.best, frames.height
    if not len(best):
        nothing = np.zeros(0, np.int64)
        return Spikes(nothing, nothing, nothing, nothing)
    starts = np.flatnonzero(np.diff(best, prepend=-1))  # of all runs, also blank ones; no symbol is -1
    ends = np.append(starts[1:], len(best))
    run = np.repeat(np.arange(len(starts)), ends - starts)  # (T,) which run a frame is in
    highest = np.flatnonzero(height == np.maximum.reduceat(height, starts)[run])
    peaks = highest[np.diff(run[highest], prepend=-1) > 0]  # the first one in each run
    spike = best[starts] != BLANK
    return Spikes(best[starts][spike], starts[spike], ends[spike], peaks[spike])


@dataclass(frozen=True)
class Agreement:
    """Teacher against student on one utterance.

    Attributes:
        frames: T, real frames.
        differing: frames whose most probable symbol differs.
        teacher: spikes of the teacher, N of them.
        student: spikes of the student.
        kept: (N,) whether the spike's symbol is the student's most probable one on *every* frame of
            the teacher's spike. The student's own run may be longer.
        touched: (N,) whether it is on at least one of these frames.
        matched: (M, 2) pairs (index of a teacher spike, index of a student spike), see
            :func:`match_spikes`.
    """

    frames: int
    differing: int
    teacher: Spikes
    student: Spikes
    kept: npt.NDArray[np.bool_]
    touched: npt.NDArray[np.bool_]
    matched: Integers

    @property
    def offsets(self) -> Integers:
        """(M,) frames from teacher spike to student spike; negative if the student is earlier."""
        return self.student.peaks[self.matched[:, 1]] - self.teacher.peaks[self.matched[:, 0]]


def compare(teacher: Frames, student: Frames) -> Agreement:
    """Compare two exits on the same T frames.

    Raises:
        ValueError: teacher and student differ in T.
    """
    if len(teacher.best) != len(student.best):
        raise ValueError(f"teacher has {len(teacher.best)} frames, student {len(student.best)}")
    same = teacher.best == student.best
    spikes, others = find_spikes(teacher), find_spikes(student)
    before = np.concatenate([[0], np.cumsum(same)])  # before[t]: agreeing frames among the first t
    agreeing = before[spikes.ends] - before[spikes.starts]
    return Agreement(
        frames=len(same),
        differing=int((~same).sum()),
        teacher=spikes,
        student=others,
        kept=agreeing == spikes.ends - spikes.starts,
        touched=agreeing > 0,
        matched=match_spikes(spikes.symbols.tolist(), others.symbols.tolist()),
    )


def match_spikes(teacher: Sequence[int], student: Sequence[int]) -> Integers:
    """Pair equal symbols in a Levenshtein alignment of two collapsed outputs.

    The alignment ignores time. Among equally short alignments, rapidfuzz's choice is taken.

    Returns:
        (M, 2) indices in ``teacher`` and ``student``, both increasing.

    Raises:
        UserError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise UserError("matching spikes needs rapidfuzz: pip install 'fairseq_skd[analysis]'") from error
    blocks = Levenshtein.opcodes(teacher, student).as_matching_blocks()
    pairs = [np.stack([np.arange(a, a + size), np.arange(b, b + size)], axis=1) for a, b, size in blocks]
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
