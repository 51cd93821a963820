"""Checking records against what fairseq, the letter dictionary and CTC can take; problems are found, none mended."""

import os
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE, Audio, frames, inspect, resampled_length
from fairseq_skd.corpora.problems import Fault, Kind, Problem
from fairseq_skd.corpora.tables import Record
from fairseq_skd.corpora.units import foreign_characters, frames_needed, letters
from fairseq_skd.corpora.workers import run_over

SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_BREAKS = frozenset("\t\n\r\0")
_PLAIN_SUFFIXES = (".wav", ".flac", ".ogg")  # fairseq reads any other path with a colon as a slice of a ZIP file


class Utterance(NamedTuple):
    """A checked record: where its audio lies (absolute), its length at its own rate, and that rate."""

    record: Record
    audio: str
    samples: int
    rate: int = SAMPLE_RATE


def validate(
    records: Sequence[Record], root: str, jobs: int = 1, resample: bool = False, decode: bool = False
) -> tuple[list[Utterance], list[Problem]]:
    """Check every record, its transcript and its audio.

    Args:
        records: what to check.
        root: absolute path of the folder that the records' paths start from.
        jobs: processes that read the audio.
        resample: other sampling rates are taken, to be converted afterwards.
        decode: decode each file completely instead of trusting its header and its end.

    Returns:
        the sound utterances in the records' order, and the problems in the same order.
    """
    located = [locate(record.path, root) for record in records]
    repeated = _repeated(records, located)
    paths = [place for place in located if isinstance(place, str)]
    found = iter(run_over(partial(inspect, decode=decode), paths, jobs, "reading audio"))
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for record, place, repeat in zip(records, located, repeated, strict=True):
        audio = next(found) if isinstance(place, str) else None
        faults = [*_label_faults(record), *repeat]
        if isinstance(place, Fault):
            faults.append(place)
        if isinstance(audio, Fault):
            faults.append(audio)
        if isinstance(audio, Audio):
            faults += _audio_faults(audio, resample)
            if audio.samples:
                faults += feasibility_faults(record.text, resampled_length(audio.samples, audio.rate))
            if not faults and isinstance(place, str):
                utterances.append(Utterance(record, place, audio.samples, audio.rate))
        problems += map(record.problem, faults)
    return utterances, problems


def locate(path: str, root: str) -> str | Fault:
    """The absolute path of a record's audio, or why a manifest under ``root`` could not hold it.

    ``path`` may be absolute and may hold ``..``, as long as it stays under ``root``.
    """
    if _BREAKS.intersection(path):
        return Fault(Kind.PATH, "it holds a tab, a line break or a zero byte, which end a field of the manifest")
    try:
        path.encode()
    except UnicodeEncodeError:
        return Fault(Kind.PATH, "it is not Unicode text")
    if path != path.strip():
        return Fault(Kind.PATH, "fairseq strips the space at its beginning or end")
    full = os.path.normpath(os.path.join(root, path))
    if not full.startswith(root.rstrip(os.sep) + os.sep):
        return Fault(Kind.PATH, f"it is not under {root}; give an --audio-root that holds all files")
    if ":" in full and not full.endswith(_PLAIN_SUFFIXES):
        return Fault(Kind.PATH, f"fairseq takes a colon only where the name ends in {', '.join(_PLAIN_SUFFIXES)}")
    return full


def _repeated(records: Sequence[Record], located: Sequence[str | Fault]) -> list[list[Fault]]:
    """For each record, the fault of repeating an earlier one of its split."""
    first: dict[tuple[str, str], Record] = {}
    faults: list[list[Fault]] = []
    for record, place in zip(records, located, strict=True):
        earlier = first.setdefault((record.split, place), record) if isinstance(place, str) else record
        faults.append([] if earlier is record else [Fault(Kind.DUPLICATE, f"as in {earlier.source}:{earlier.line}")])
    return faults


def _label_faults(record: Record) -> Iterable[Fault]:
    """What is wrong with a record's split name and transcript."""
    if not SPLIT_NAME.fullmatch(record.split):
        yield Fault(Kind.ROW, f"the split {record.split!r} is no file name of letters, digits, '_', '-' and '.'")
    text = record.text
    if not text.strip():
        yield Fault(Kind.EMPTY_TEXT)
        return
    foreign = foreign_characters(text)
    if foreign:
        mend = "; write it in upper case" if set(foreign).intersection(string.ascii_lowercase) else ""
        yield Fault(Kind.ALPHABET, " ".join(map(_character, foreign)) + mend)
    if text != text.strip(" ") or "  " in text:
        yield Fault(Kind.ALPHABET, "a space at its beginning or end, or two in a row")


def _character(character: str) -> str:
    """A character as the report shows it: with its name where it is not plain ASCII print."""
    if character.isascii() and character.isprintable():
        return character
    return f"{character!r} (U+{ord(character):04X} {unicodedata.name(character, 'control character')})"


def _audio_faults(audio: Audio, resample: bool) -> Iterable[Fault]:
    """What keeps readable audio from being used, its length apart."""
    if audio.samples == 0:
        yield Fault(Kind.EMPTY_AUDIO)
    if audio.rate != SAMPLE_RATE and not resample:
        yield Fault(Kind.RATE, f"{audio.rate} Hz")
    if audio.channels != 1:
        yield Fault(Kind.CHANNELS, f"{audio.channels} channels")


def feasibility_faults(text: str, samples: int) -> Iterable[Fault]:
    """The fault of a transcript that CTC cannot place on the frames of ``samples`` samples at 16 kHz."""
    needed, given = frames_needed(letters(" ".join(text.split()))), frames(samples)
    if needed > given and text.strip():
        yield Fault(Kind.TOO_LONG, f"{needed} frames needed, {given} in {samples / SAMPLE_RATE:.2f} s")
