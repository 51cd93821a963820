"""Compare folders written by ``infer`` or ``align``, by utterance. Needs the extra ``analysis``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.judge import with_bounds
from experiments.runs import ANALYSIS, SUMMARY
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import read_speakers
from fairseq_skd.scoring.bootstrap import Interval, paired_difference, rate_interval
from fairseq_skd.scoring.transcripts import read_texts, utterance_errors, utterance_speakers


@dataclass
class Side:
    """One side of a comparison: one entry per utterance of some folders.

    Attributes:
        errors: word or character errors; or the teacher's spikes that the student lacks on the
            same frames.
        totals: reference words or characters; or the teacher's spikes.
        texts: references, or audio files; equal on two sides that can be compared.
        drawn: unit of a bootstrap draw: the speaker, or the utterance. Several runs can share it.
    """

    errors: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)

    def add(self, folder: Path, over: str, rate: str) -> None:
        """Add the utterances of a folder.

        Raises:
            UserError: the folder is incomplete, or its speakers are unknown.
        """
        if rate == "spikes":
            found = _read(folder / ANALYSIS)
            counts, manifest = found["by_utterance"], Path(found["manifest"])
            errors, totals, texts = (counts[key] for key in ("lost_spikes", "teacher_spikes", "name"))
            speakers = read_speakers(manifest) if over == "speakers" else None
        else:
            errors, totals = zip(*utterance_errors(folder, characters=rate == "cer"), strict=True)
            texts, manifest = read_texts(folder / "ref.word"), Path(_read(folder / SUMMARY)["manifest"])
            speakers = utterance_speakers(folder, manifest) if over == "speakers" else None
        if over == "speakers" and len(set(speakers or ())) < 2:
            spk = manifest.with_suffix(".spk")
            raise UserError(f"{folder}: {spk} does not name two or more speakers, give --over utterances")
        self.errors += errors
        self.totals += totals
        self.texts += texts
        self.drawn += speakers or [f"{manifest}:{i}" for i in range(len(texts))]


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give folders written by infer or align") from error


def compare_folders(first: Sequence[Path], second: Sequence[Path], over: str, rate: str) -> str:
    """Compare two sets of folders: both rates in one line, their difference in another.

    Args:
        first: folders; several runs of one subset, or several subsets, are pooled.
        second: folders of the same utterances, in the same order.
        over: ``utterances`` or ``speakers``: the unit that is drawn.
        rate: ``wer``, ``cer``, or ``spikes`` (spike disagreement; folders of ``align``).

    Raises:
        UserError: a folder is incomplete, or the two sides have different utterances.
    """
    a, b = Side(), Side()
    for side, folders in ((a, first), (b, second)):
        for folder in folders:
            side.add(folder, over, rate)
    if a.texts != b.texts:
        names = (" ".join(map(str, folders)) for folders in (first, second))
        raise UserError(
            "{} and {} do not have the same utterances in the same order: decode the same subset".format(*names)
        )
    rates = " and ".join(_percent(rate_interval(side.errors, side.totals, side.drawn)) for side in (a, b))
    found = paired_difference(a.errors, b.errors, a.totals, b.totals, a.drawn)
    return (
        f"{len(a.texts)} utterances, {len(set(a.drawn))} {over} drawn, {rate} % [95 %]: {rates}\n"
        f"difference, points: {_percent(found.interval)}; the first is better in {found.better:.1%} of draws"
    )


def _percent(interval: Interval) -> str:
    return with_bounds(Interval(*(100 * bound for bound in interval)))
