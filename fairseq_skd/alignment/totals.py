"""Pool counts of utterances to metrics of a set: sum first, divide last."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fairseq_skd.alignment.spikes import Agreement, Frames, Integers
from fairseq_skd.scoring.bootstrap import Interval, rate_interval

WITHIN_FRAMES = (0, 1, 2)


class Certainty(NamedTuple):
    """Sums over the frames of one exit.

    Attributes:
        frames: number of real frames.
        blanks: number of frames whose most probable symbol is blank.
        entropy: sum of entropies, in bits.
        highest: sum of the posteriors of the most probable symbols.
    """

    frames: int
    blanks: int
    entropy: float
    highest: float

    @classmethod
    def of(cls, frames: Frames) -> "Certainty":
        """Sum over one utterance, whose heights are log posteriors."""
        return cls(
            len(frames.best),
            frames.blanks,
            float(frames.entropy.sum(dtype=np.float64)),
            float(np.exp(frames.height).sum(dtype=np.float64)),
        )

    @classmethod
    def total(cls, parts: Sequence["Certainty"]) -> "Certainty":
        """Add several sums."""
        return cls(*(sum(column) for column in zip(*parts, strict=True)))

    def shares(self) -> dict[str, float | None]:
        """Divide by the number of frames; None without frames."""
        return {
            "blank_share": _share(self.blanks, self.frames),
            "entropy_bits": _share(self.entropy, self.frames),
            "highest_posterior": _share(self.highest, self.frames),
        }


def utterance_counts(agreements: Sequence[Agreement]) -> dict[str, list[int]]:
    """Count frames and spikes per utterance; the metrics divide sums of these columns."""
    return {
        "frames": [a.frames for a in agreements],
        "differing_frames": [a.differing for a in agreements],
        "teacher_spikes": [len(a.kept) for a in agreements],
        "student_spikes": [len(a.student.symbols) for a in agreements],
        "lost_spikes": [int((~a.kept).sum()) for a in agreements],
        "missed_spikes": [int((~a.touched).sum()) for a in agreements],
        "matched_spikes": [len(a.matched) for a in agreements],
    }


def disagreements(
    counts: dict[str, list[int]], resamples: int, seed: int, speakers: Sequence[str] | None = None
) -> dict[str, Any]:
    """Compute frame disagreement, spike disagreement and spike miss with bootstrap intervals.

    Args:
        counts: from :func:`utterance_counts`.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        speakers: one per utterance; the bootstrap then draws speakers. None: unknown.
    """
    names = (
        ("frame_disagreement", "differing_frames", "frames"),
        ("spike_disagreement", "lost_spikes", "teacher_spikes"),
        ("spike_miss", "missed_spikes", "teacher_spikes"),
    )
    return {
        name: _as_json(rate_interval(counts[errors], counts[totals], speakers, resamples=resamples, seed=seed))
        for name, errors, totals in names
    }


def offsets(agreements: Sequence[Agreement], frame_ms: float) -> dict[str, Any]:
    """Summarize the offsets of matched spikes, student minus teacher, in ms.

    Args:
        agreements: all utterances.
        frame_ms: milliseconds from one frame to the next.

    Returns:
        ``matched``, the number of matched spikes; ``mean_ms`` and ``median_ms`` of the absolute
        offset; ``within_ms``, the share of matched spikes at most so far apart; ``signed_mean_ms``
        (negative: the student is earlier); ``histogram``, the spikes per signed offset. Means are
        null without a matched spike.
    """
    signed = np.concatenate([a.offsets for a in agreements]) if agreements else np.zeros(0, np.int64)
    distance = np.abs(signed)
    known = len(signed) > 0
    places, numbers = np.unique(signed, return_counts=True)
    return {
        "matched": len(signed),
        "mean_ms": float(distance.mean() * frame_ms) if known else None,
        "median_ms": float(np.median(distance) * frame_ms) if known else None,
        "signed_mean_ms": float(signed.mean() * frame_ms) if known else None,
        "within_ms": {
            f"{limit * frame_ms:g}": _share(int((distance <= limit).sum()), len(signed)) for limit in WITHIN_FRAMES
        },
        "histogram": [
            {"ms": place * frame_ms, "spikes": number}
            for place, number in zip(places.tolist(), numbers.tolist(), strict=True)
        ],
    }


def by_symbol(agreements: Sequence[Agreement], symbols: Sequence[str]) -> list[dict[str, Any]]:
    """Count teacher spikes, lost and missed ones per symbol; most frequent first."""

    def count(chosen: Sequence[Integers]) -> Integers:
        return np.bincount(np.concatenate([*chosen, np.zeros(0, np.int64)]), minlength=len(symbols))

    spikes = count([a.teacher.symbols for a in agreements])
    lost = count([a.teacher.symbols[~a.kept] for a in agreements])
    missed = count([a.teacher.symbols[~a.touched] for a in agreements])
    return [
        {"symbol": symbols[i], "teacher_spikes": int(spikes[i]), "lost": int(lost[i]), "missed": int(missed[i])}
        for i in np.argsort(-spikes, kind="stable").tolist()
        if spikes[i]
    ]


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _as_json(interval: Interval) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in interval._asdict().items()}
