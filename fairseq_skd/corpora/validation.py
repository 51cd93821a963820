"""Check records for fairseq, the dictionary and CTC: find problems, fix none."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE, Audio, frames, inspect, resampled_length
from fairseq_skd.corpora.records import SPLIT_NAME, Fault, Kind, Problem, Record, Segment
from fairseq_skd.files.units import LETTERS, NO_UNITS, Units, foreign_characters, frames_needed
from fairseq_skd.files.workers import CHEAP, run_over

OVERSHOOT = 0.5  # seconds
_BREAKS = frozenset("\t\n\r\0")
_PLAIN_SUFFIXES = (".wav", ".flac", ".ogg")  # fairseq reads any other path with a colon as a slice of a ZIP file


class Utterance(NamedTuple):
    """A checked record and its audio.

    Attributes:
        record: the record.
        audio: absolute path of the audio file.
        samples: number of samples at the file's sampling rate.
        rate: sampling rate of the file in Hz.
        stretch: first and last (exclusive) sample of a segment; None: the whole file.
        channel: channel to take, from 0, or :data:`~fairseq_skd.corpora.audio.MEAN`; None: the file
            has only one.
        derived: a new file has to be made of it.
    """

    record: Record
    audio: str
    samples: int
    rate: int = SAMPLE_RATE
    stretch: tuple[int, int] | None = None
    channel: int | str | None = None
    derived: bool = False


def validate(
    records: Sequence[Record],
    root: str,
    jobs: int = 1,
    resample: bool = False,
    decode: bool = False,
    units: Units | None = LETTERS,
    channel: int | str | None = None,
) -> tuple[list[Utterance], list[Problem]]:
    """Check every record, its transcript and its audio.

    Args:
        records: what to check.
        root: absolute path of the folder that the records' paths start from.
        jobs: number of processes that read audio.
        resample: accept other sampling rates, which are converted later, and convert MP3, too.
        decode: decode each file completely instead of trusting its header and its end.
        units: units for the check that transcripts fit their frames; None: skip that check.
        channel: what to take of files with several channels, unless the record says it.

    Returns:
        the valid utterances and the problems, both in the records' order.
    """
    located = [locate(record.path, root) for record in records]
    repeated = _repeated(records, located, channel)
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
            if record.segment and record.channel is None and _is_whole(record.segment, audio):
                record = record._replace(segment=None)
            taken = choose_channel(channel if record.channel is None else record.channel, audio.channels)
            if isinstance(taken, Fault):
                faults.append(taken)
            stretch = segment_samples(record.segment, audio) if record.segment else None
            if isinstance(stretch, Fault):
                faults.append(stretch)
            elif audio.samples:
                samples = stretch[1] - stretch[0] if stretch else audio.samples
                if units:
                    faults += feasibility_faults(record.text, resampled_length(samples, audio.rate), units)
                if not faults and not isinstance(taken, Fault):
                    new = bool(stretch) or taken is not None or audio.rate != SAMPLE_RATE or (audio.mp3 and resample)
                    utterances.append(Utterance(record, place, samples, audio.rate, stretch, taken, new))
        if faults:
            problems += map(record.problem, faults)
    return utterances, problems


def _inspect_all(paths: Sequence[str], jobs: int, decode: bool) -> Iterator[Audio | Fault]:
    return run_over(partial(inspect, decode=decode), paths, jobs, "reading audio", chunk=32 if decode else CHEAP)


def choose_channel(wanted: int | str | None, channels: int) -> int | str | Fault | None:
    """Choose what to take of a file with ``channels`` channels, or find out why it cannot be.

    >>> choose_channel("mean", 2), choose_channel("mean", 1), choose_channel(1, 2)
    ('mean', None, 1)
    """
    if isinstance(wanted, int) and wanted >= channels:
        return Fault(Kind.NO_CHANNEL, f"channel {wanted} of {channels}")
    if channels == 1:
        return None
    return Fault(Kind.CHANNELS, f"{channels} channels") if wanted is None else wanted


def segment_samples(segment: Segment, audio: Audio) -> tuple[int, int] | Fault:
    """Find first and last (exclusive) sample of a segment, or why it has none.

    An end up to half a second after the recording is set to its end, as Kaldi does.
    """
    length = audio.samples / audio.rate
    end = length if segment.end is None else segment.end
    if not 0 <= segment.start < min(end, length) or end > length + OVERSHOOT:
        return Fault(Kind.SEGMENT, f"{segment.start:g} s to {end:g} s of {length:.2f} s")
    first, stop = round(segment.start * audio.rate), min(round(end * audio.rate), audio.samples)
    return (first, stop) if first < stop else Fault(Kind.SEGMENT, "it has no sample")


def _is_whole(segment: Segment, audio: Audio) -> bool:
    """Tell whether a segment is its whole recording, see :class:`Segment`."""
    length = audio.samples / audio.rate
    end = length if segment.end is None else segment.end
    return bool(segment.slack) and segment.start >= 0 and segment.start + abs(length - end) <= segment.slack


def locate(path: str, root: str) -> str | Fault:
    """Find the absolute path of a record's audio, or why a manifest under ``root`` cannot hold it.

    ``path`` may be absolute and may contain ``..``, but must stay under ``root``.
    """
    if unfit := _unfit_for_a_line(path):
        return Fault(Kind.PATH, f"it {unfit}")
    if path != path.strip():
        return Fault(Kind.PATH, "it begins or ends with white space, which fairseq strips")
    full = os.path.join(root, path)
    if "/." in full or "//" in full or full.endswith("/"):
        full = os.path.normpath(full)
    if not full.startswith(root.rstrip(os.sep) + os.sep):
        return Fault(Kind.PATH, f"it is not under {root}; give an --audio-root that holds all files")
    if ":" in full and not full.endswith(_PLAIN_SUFFIXES):
        return Fault(Kind.PATH, f"fairseq allows a colon only in names that end in {', '.join(_PLAIN_SUFFIXES)}")
    return full


def _unfit_for_a_line(text: str) -> str:
    """Say why a text cannot be a field of a manifest's line; empty if it can."""
    if _BREAKS.intersection(text):
        return "holds a tab, a line break or a zero byte, which end a field of the manifest"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not Unicode text"
    return ""


def _repeated(
    records: Sequence[Record], located: Sequence[str | Fault], channel: int | str | None
) -> list[list[Fault]]:
    """Find records that repeat the file, its channel, or segment of an earlier one of their split.

    Returns:
        a list of faults for each record, empty or of one fault.
    """
    first: dict[tuple[object, ...], Record] = {}
    faults: list[list[Fault]] = []
    for record, place in zip(records, located, strict=True):
        taken = channel if record.channel is None else record.channel
        key = (record.split, record.segment.name) if record.segment else (record.split, place, taken)
        earlier = first.setdefault(key, record) if isinstance(place, str) else record
        faults.append([] if earlier is record else [Fault(Kind.DUPLICATE, f"as in {earlier.source}:{earlier.line}")])
    return faults


def label_faults(record: Record, units: Units | None = None) -> Iterable[Fault]:
    """Find faults of a record's split name, speaker and transcript.

    With ``units``, also find text that they cannot spell.
    """
    if not SPLIT_NAME.fullmatch(record.split):
        yield Fault(Kind.ROW, f"the split {record.split!r} is not a file name of letters, digits, '_', '-' and '.'")
    if unfit := _unfit_for_a_line(record.speaker):
        yield Fault(Kind.ROW, f"the speaker {record.speaker!r} {unfit}")
    text = record.text
    if units is NO_UNITS:
        return
    if not text.strip():
        yield Fault(Kind.EMPTY_TEXT)
        return
    foreign = foreign_characters(text)
    if foreign:
        fix = "; write it in upper case" if any("a" <= character <= "z" for character in foreign) else ""
        yield Fault(Kind.ALPHABET, " ".join(map(_character, foreign)) + fix)
    elif text != text.strip(" ") or "  " in text:
        yield Fault(Kind.ALPHABET, "a space at its beginning or end, or two in a row")
    elif units and (lack := units.missing(text)):
        yield Fault(Kind.ALPHABET, lack)


def _character(character: str) -> str:
    """Show a character in the report, with its Unicode name unless it is printable ASCII."""
    if character.isascii() and character.isprintable():
        return character
    import unicodedata

    return f"{character!r} (U+{ord(character):04X} {unicodedata.name(character, 'control character')})"


def _audio_faults(audio: Audio, resample: bool) -> Iterable[Fault]:
    """Find faults of readable audio, except a length that does not fit the transcript."""
    if audio.samples == 0:
        yield Fault(Kind.EMPTY_AUDIO)
    if audio.rate != SAMPLE_RATE and not resample:
        yield Fault(Kind.RATE, f"{audio.rate} Hz")


def feasibility_faults(text: str, samples: int, units: Units) -> Iterable[Fault]:
    """Find whether a transcript needs more frames for CTC than ``samples`` at 16 kHz give."""
    given = frames(samples)
    if 2 * (len(text) + 1) <= given:
        return  # enough for any text of this length
    needed = frames_needed(units.split(" ".join(text.split())))
    if needed > given and text.strip():
        yield Fault(Kind.TOO_LONG, f"it needs {needed} frames, {samples / SAMPLE_RATE:.2f} s have {given}")
