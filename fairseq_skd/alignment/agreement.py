"""Agreement of teacher and student over one utterance (docs/alignment.md)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairseq_skd.alignment.spikes import Frames, Integers, Spikes, find_spikes
from fairseq_skd.errors import UserError


@dataclass(frozen=True)
class Agreement:
    """One utterance, teacher against student.

    Attributes:
        frames: T, real frames.
        differing: frames whose most probable symbol differs.
        teacher: its spikes, N of them.
        student: its spikes.
        kept: (N,) whether the student's most probable symbol is the spike's on *every* frame of the teacher's spike: it
            has that spike on the same frames. The student's own run may be longer.
        touched: (N,) whether it is on at least one of them.
        matched: (M, 2) pairs (index of a teacher's spike, of a student's), see :func:`match_spikes`.
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
        """(M,) frames from the teacher's spike to the student's; negative where the student is earlier."""
        return self.student.peaks[self.matched[:, 1]] - self.teacher.peaks[self.matched[:, 0]]


def compare(teacher: Frames, student: Frames) -> Agreement:
    """Compare two exits over the same T frames.

    Raises:
        ValueError: the two differ in T.
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
    """Pairs of equal symbols in a Levenshtein alignment of two collapsed outputs.

    Where several alignments are equally short, rapidfuzz's choice is taken; time plays no part in it.

    Returns:
        (M, 2) places in ``teacher`` and ``student``, both increasing.

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
