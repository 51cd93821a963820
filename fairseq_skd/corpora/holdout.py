"""Take a validation split from the training split, by speaker, so that it stays when data grow."""

import hashlib
import math
import os.path
from collections.abc import Sequence
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE
from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.validation import Utterance
from fairseq_skd.errors import UserError

VALID = "valid"
_BYTES = 6  # a float holds them exactly


class HeldOut(NamedTuple):
    """Who was held out.

    Attributes:
        origin: the training split.
        held: number of speakers (or recordings) in the new split.
        total: number of speakers (or recordings) that there are.
        noun: ``speakers`` or ``recordings``.
        loose: utterances without a speaker, if others have one; they go by recording.
    """

    origin: str
    held: int
    total: int
    noun: str
    loose: int = 0

    def notes(self, utterances: Sequence[Utterance]) -> list[str]:
        """Tell what is in the new split, for the summary."""
        members = [utterance for utterance in utterances if utterance.record.split == VALID]
        hours = sum(member.samples for member in members) / SAMPLE_RATE / 3600
        notes = [
            f"{VALID} holds out {self.held} of {self.total} {self.noun} of {self.origin}: {len(members)} utterances, "
            f"{hours:.3f} hours"
        ]
        if self.noun == "recordings":
            both = f"{VALID} and {self.origin} may share a speaker"
            notes.append(f"{self.origin} names fewer than two speakers, so recordings were held out: {both}")
        elif self.loose:
            notes.append(f"{self.loose} utterances of {self.origin} had no speaker, so they went by recording")
        return notes


def place(name: str) -> float:
    """Map a name to [0, 1) by SHA-256: the same on all machines, evenly spread.

    >>> place("anna") < 0.5
    True
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_BYTES], "big") / 256**_BYTES


def hold_out(records: Sequence[Record], fraction: float) -> tuple[list[Record], HeldOut]:
    """Move the utterances of some speakers from the training split to a new split ``valid``.

    A speaker is held out if :func:`place` of the name is below ``fraction``, whoever else there is.
    Utterances without a speaker go by their recording, and so do all if there are not two speakers.

    Args:
        records: the corpus, which has no split ``valid``.
        fraction: above 0 and below 1.

    Raises:
        UserError: there is a split ``valid`` or no training split, or the fraction holds out nobody
            or everybody.
    """
    origin = _training_split(list(dict.fromkeys(record.split for record in records)))
    there = [record for record in records if record.split == origin]
    known = len({record.speaker for record in there} - {""}) > 1

    def group(record: Record) -> tuple[str, str]:
        """Return what stays together: a speaker, or a recording with all its segments."""
        if known and record.speaker:
            return "speaker", record.speaker
        return "recording", os.path.normpath(record.path)  # as the source states it: the root may change

    groups = {record: group(record) for record in there}
    places = {one: place(one[1]) for one in set(groups.values())}
    noun = "speakers" if known else "recordings"
    option = f"--hold-out {fraction:g}"
    if len(places) < 2:
        raise UserError(f"{option}: {origin} has only one recording and one speaker; give {VALID} data of its own")
    if min(places.values()) >= fraction:
        least = math.floor(min(places.values()) * 10_000 + 1) / 10_000
        raise UserError(
            f"{option}: none of the {len(places)} {noun} of {origin} falls below it; the smallest fraction that "
            f"holds out one is {least:g}"
        )
    if max(places.values()) < fraction:
        raise UserError(f"{option} holds out all {len(places)} {noun} of {origin}; give a smaller fraction")
    moved = [
        record._replace(split=VALID) if record in groups and places[groups[record]] < fraction else record
        for record in records
    ]
    chosen = [one for one, where in places.items() if where < fraction and (one[0] == "speaker") == known]
    total = [one for one in places if (one[0] == "speaker") == known]
    loose = sum(not record.speaker for record in there) if known else 0
    return moved, HeldOut(origin, len(chosen), len(total), noun, loose)


def _training_split(splits: list[str]) -> str:
    """Choose the split to take from."""
    if VALID in splits:
        raise UserError(f"--hold-out makes a split {VALID}, but there is one already; leave the option out")
    train = ["train"] if "train" in splits else [split for split in splits if split.startswith("train")]
    train = train or splits
    if len(train) != 1:
        raise UserError(f"--hold-out needs one training split, not {', '.join(train) or 'none'}; call it train")
    return train[0]
