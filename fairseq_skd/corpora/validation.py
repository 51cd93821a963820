"""Checking records against what fairseq, the letter dictionary and CTC can take; problems are found, none mended."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE, Audio, frames, inspect, resampled_length
from fairseq_skd.corpora.records import SPLIT_NAME, Fault, Kind, Problem, Record, Segment
from fairseq_skd.files.units import LETTERS, Units, foreign_characters, frames_needed
from fairseq_skd.files.workers import CHEAP, run_over

OVERSHOOT = 0.5  # seconds
_BREAKS = frozenset("\t\n\r\0")
_PLAIN_SUFFIXES = (".wav", ".flac", ".ogg")  # fairseq reads any other path with a colon as a slice of a ZIP file


class Utterance(NamedTuple):
    """A checked record: where its audio lies (absolute), its length at its own rate, that rate, and its stretch.

    ``stretch`` is the samples from the first to the last (exclusive) that a segment takes; None for a whole file.
    """

    record: Record
    audio: str
    samples: int
    rate: int = SAMPLE_RATE
    stretch: tuple[int, int] | None = None


def validate(
    records: Sequence[Record],
    root: str,
    jobs: int = 1,
    resample: bool = False,
    decode: bool = False,
    units: Units | None = LETTERS,
) -> tuple[list[Utterance], list[Problem]]:
    """Check every record, its transcript and its audio.

    Args:
        records: what to check.
        root: absolute path of the folder that the records' paths start from.
        jobs: processes that read the audio.
        resample: other sampling rates are taken, to be converted afterwards.
        decode: decode each file completely instead of trusting its header and its end.
        units: what CTC has to place on the frames; None, where no transcript is sound anyway, leaves that out.

    Returns:
        the sound utterances in the records' order, and the problems in the same order.
    """
    located = [locate(record.path, root) for record in records]
    repeated = _repeated(records, located)
    paths = list(dict.fromkeys(place for place in located if isinstance(place, str)))
    arriving = zip(paths, _inspect_all(paths, jobs, decode), strict=True)
    found: dict[str, Audio | Fault] = {}
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for record, place, repeat in zip(records, located, repeated, strict=True):
        faults = [*label_faults(record, units), *repeat]
        while isinstance(place, str) and place not in found:
            found.update([next(arriving)])
        audio = place if isinstance(place, Fault) else found[place]
        if isinstance(audio, Fault):
            faults.append(audio)
        elif isinstance(place, str):
            faults += _audio_faults(audio, resample)
            stretch = segment_samples(record.segment, audio) if record.segment else None
            if isinstance(stretch, Fault):
                faults.append(stretch)
            elif audio.samples:
                samples = stretch[1] - stretch[0] if stretch else audio.samples
                if units:
                    faults += feasibility_faults(record.text, resampled_length(samples, audio.rate), units)
                if not faults:
                    utterances.append(Utterance(record, place, samples, audio.rate, stretch))
        if faults:
            problems += map(record.problem, faults)
    return utterances, problems


def _inspect_all(paths: Sequence[str], jobs: int, decode: bool) -> Iterator[Audio | Fault]:
    return run_over(partial(inspect, decode=decode), paths, jobs, "reading audio", chunk=32 if decode else CHEAP)


def segment_samples(segment: Segment, audio: Audio) -> tuple[int, int] | Fault:
    """The samples of a segment in its recording, or why it has none.

    An end up to half a second behind the recording's is taken for the recording's, as Kaldi does.
    """
    length = audio.samples / audio.rate
    end = length if segment.end is None else segment.end
    if not 0 <= segment.start < min(end, length) or end > length + OVERSHOOT:
        return Fault(Kind.SEGMENT, f"{segment.start:g} s to {end:g} s of {length:.2f} s")
    first, stop = round(segment.start * audio.rate), min(round(end * audio.rate), audio.samples)
    return (first, stop) if first < stop else Fault(Kind.SEGMENT, "it has no sample")


def locate(path: str, root: str) -> str | Fault:
    """The absolute path of a record's audio, or why a manifest under ``root`` could not hold it.

    ``path`` may be absolute and may hold ``..``, as long as it stays under ``root``.
    """
    if unfit := _unfit_for_a_line(path):
        return Fault(Kind.PATH, f"it {unfit}")
    if path != path.strip():
        return Fault(Kind.PATH, "fairseq strips the space at its beginning or end")
    full = os.path.join(root, path)
    if "/." in full or "//" in full or full.endswith("/"):
        full = os.path.normpath(full)
    if not full.startswith(root.rstrip(os.sep) + os.sep):
        return Fault(Kind.PATH, f"it is not under {root}; give an --audio-root that holds all files")
    if ":" in full and not full.endswith(_PLAIN_SUFFIXES):
        return Fault(Kind.PATH, f"fairseq takes a colon only where the name ends in {', '.join(_PLAIN_SUFFIXES)}")
    return full


def _unfit_for_a_line(text: str) -> str:
    """Why a text cannot be a field of a manifest's line; empty if it can."""
    if _BREAKS.intersection(text):
        return "holds a tab, a line break or a zero byte, which end a field of the manifest"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not Unicode text"
    return ""


def _repeated(records: Sequence[Record], located: Sequence[str | Fault]) -> list[list[Fault]]:
    """For each record, the fault of repeating an earlier one of its split: the same file, or the same segment of it."""
    first: dict[tuple[object, ...], Record] = {}
    faults: list[list[Fault]] = []
    for record, place in zip(records, located, strict=True):
        key = (record.split, record.segment.name) if record.segment else (record.split, place, "")
        earlier = first.setdefault(key, record) if isinstance(place, str) else record
        faults.append([] if earlier is record else [Fault(Kind.DUPLICATE, f"as in {earlier.source}:{earlier.line}")])
    return faults


def label_faults(record: Record, units: Units | None = None) -> Iterable[Fault]:
    """What is wrong with a record's split name, speaker and transcript, also in the eyes of ``units``."""
    if not SPLIT_NAME.fullmatch(record.split):
        yield Fault(Kind.ROW, f"the split {record.split!r} is no file name of letters, digits, '_', '-' and '.'")
    if unfit := _unfit_for_a_line(record.speaker):
        yield Fault(Kind.ROW, f"the speaker {record.speaker!r} {unfit}")
    text = record.text
    if not text.strip():
        yield Fault(Kind.EMPTY_TEXT)
        return
    foreign = foreign_characters(text)
    if foreign:
        mend = "; write it in upper case" if any("a" <= character <= "z" for character in foreign) else ""
        yield Fault(Kind.ALPHABET, " ".join(map(_character, foreign)) + mend)
    elif text != text.strip(" ") or "  " in text:
        yield Fault(Kind.ALPHABET, "a space at its beginning or end, or two in a row")
    elif units and (lack := units.missing(text)):
        yield Fault(Kind.ALPHABET, lack)


def _character(character: str) -> str:
    """A character as the report shows it: with its name where it is not plain ASCII print."""
    if character.isascii() and character.isprintable():
        return character
    import unicodedata

    return f"{character!r} (U+{ord(character):04X} {unicodedata.name(character, 'control character')})"


def _audio_faults(audio: Audio, resample: bool) -> Iterable[Fault]:
    """What keeps readable audio from being used, its length apart."""
    if audio.samples == 0:
        yield Fault(Kind.EMPTY_AUDIO)
    if audio.rate != SAMPLE_RATE and not resample:
        yield Fault(Kind.RATE, f"{audio.rate} Hz")
    if audio.channels != 1:
        yield Fault(Kind.CHANNELS, f"{audio.channels} channels")


def feasibility_faults(text: str, samples: int, units: Units) -> Iterable[Fault]:
    """The fault of a transcript that CTC cannot place on the frames of ``samples`` samples at 16 kHz."""
    given = frames(samples)
    if 2 * (len(text) + 1) <= given:
        return  # enough for any text of that length, so there is no need to count
    needed = frames_needed(units.split(" ".join(text.split())))
    if needed > given and text.strip():
        yield Fault(Kind.TOO_LONG, f"{needed} frames needed, {given} in {samples / SAMPLE_RATE:.2f} s")
