"""A prepared corpus in a few lines: what each split holds, and what splits share."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from tabulate import tabulate

from fairseq_skd.corpora.audio import SAMPLE_RATE
from fairseq_skd.corpora.preparation import Prepared
from fairseq_skd.corpora.validation import Utterance
from fairseq_skd.corpora.writing import by_split


def summary(prepared: Prepared, out: Path) -> str:
    """A row for each split, a note for each thing done on the way or shared by two splits, and ``out``."""
    splits, units = by_split(prepared.utterances), prepared.units
    header = ("split", "utterances", "hours", "speakers", "words", units.noun)
    rows = []
    for split, members in splits.items():
        texts = [member.record.text for member in members]
        hours = sum(member.samples for member in members) / SAMPLE_RATE / 3600
        speakers = len({member.record.speaker for member in members} - {""}) or "-"
        words, counted = sum(len(text.split()) for text in texts), sum(map(units.count, texts))
        rows.append((split, f"{len(members)}", f"{hours:.3f}", f"{speakers}", f"{words}", f"{counted}"))
    columns = ("left", *["right"] * (len(header) - 1))
    table = tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=columns)
    notes = [f"note: {note}" for note in (*prepared.notes, *_without_speaker(splits), *_shared(splits))]
    return "\n".join([table, *notes, f"written to {out}"])


def _without_speaker(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """A note for each split of which some speakers are known, which is too few for ``<split>.spk``."""
    for split, members in splits.items():
        lacking = sum(not member.record.speaker for member in members)
        if 0 < lacking < len(members):
            yield f"{lacking} of {len(members)} utterances of {split} have no speaker, so {split}.spk is not written"


def _shared(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """A note for each pair of splits that share audio files or speakers: harmless for subsets, not for test sets."""
    files = {split: {member.audio for member in members} for split, members in splits.items()}
    speakers = {split: {member.record.speaker for member in members} - {""} for split, members in splits.items()}
    for left, right in combinations(splits, 2):
        for kind, sets in (("audio file(s)", files), ("speaker(s)", speakers)):
            common = len(sets[left] & sets[right])
            if common:
                yield f"{left} and {right} share {common} {kind}"
