"""Check records for fairseq, the dictionary and CTC: find problems, fix none."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE, Audio, frames, inspect, resampled_length
from fairseq_skd.corpora.records import SPLIT_NAME, Fault, Kind, Outside, Problem, Record, Segment
from fairseq_skd.files.units import LETTERS, NO_UNITS, Symbols, Units, frames_needed
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
    units: Units = LETTERS,
    channel: int | str | None = None,
    skip_bad: bool = False,
) -> tuple[list[Utterance], list[Problem]]:
    """Check every record, its transcript and its audio.

    Args:
        records: what to check.
        root: absolute path of the folder that the records' paths start from.
        jobs: number of processes that read audio.
        resample: accept other sampling rates, which are converted later, and convert MP3, too.
        decode: decode each file completely instead of trusting its header and its end.
        units: units of the transcripts.
        channel: what to take of files with several channels, unless the record says it.
        skip_bad: bad rows are left out, so a row may repeat one that is bad for another reason.

    Returns:
        the valid utterances and the problems, both in the records' order.
    """
    located = [locate(record.path, root) for record in records]
    paths = list(dict.fromkeys(place for place in located if isinstance(place, str)))
    arriving = zip(paths, _inspect_all(paths, jobs, decode), strict=True)
    found: dict[str, Audio | Fault] = {}
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    first: dict[tuple[object, ...], Record] = {}
    for record, place in zip(records, located, strict=True):
        faults = list(label_faults(record, units))
        utterance = None
        while isinstance(place, str) and place not in found:
            found.update([next(arriving)])
        audio = place if isinstance(place, Fault) else found[place]
        if isinstance(audio, Audio) and record.channel is None and _is_whole(record.segment, audio):
            record = record._replace(segment=None)
        if isinstance(audio, Fault):
            faults.append(audio)
        elif isinstance(place, str):
            faults += _audio_faults(audio, resample)
            taken = choose_channel(channel if record.channel is None else record.channel, audio.channels)
            if isinstance(taken, Fault):
                faults.append(taken)
            stretch = segment_samples(record.segment, audio) if record.segment else None
            if isinstance(stretch, Fault):
                faults.append(stretch)
            elif audio.samples:
                samples = stretch[1] - stretch[0] if stretch else audio.samples
                faults += feasibility_faults(record.text, resampled_length(samples, audio.rate), units)
                if not isinstance(taken, Fault):
                    new = bool(stretch) or taken is not None or audio.rate != SAMPLE_RATE or (audio.mp3 and resample)
                    utterance = Utterance(record, place, samples, audio.rate, stretch, taken, new)
        if isinstance(place, str) and not (faults and skip_bad):
            faults += _repeated(record, place, audio, channel, first)
        if utterance and not faults:
            utterances.append(utterance)
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


def _is_whole(segment: Segment | None, audio: Audio) -> bool:
    """Tell whether a segment is its whole recording, see :class:`Segment`."""
    if segment is None:
        return False
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
    record: Record, place: str, audio: Audio | Fault, channel: int | str | None, first: dict[tuple[object, ...], Record]
) -> Iterator[Fault]:
    """Find whether a record repeats the file, its channel, or segment of one in ``first``."""
    wanted = channel if record.channel is None else record.channel
    taken = None if isinstance(audio, Audio) and audio.channels == 1 else wanted
    key = (record.split, record.segment.name) if record.segment else (record.split, place, taken)
    earlier = first.setdefault(key, record)
    if earlier is not record:
        yield Fault(Kind.DUPLICATE, f"as in {earlier.source}:{earlier.line}")


def label_faults(record: Record, units: Units) -> Iterable[Fault]:
    """Find faults of a record's split name, speaker and transcript, which ``units`` must spell."""
    if not SPLIT_NAME.fullmatch(record.split):
        yield Fault(Kind.ROW, f"the split {record.split!r} is not a file name of letters, digits, '_', '-' and '.'")
    if unfit := _unfit_for_a_line(record.speaker):
        yield Fault(Kind.ROW, f"the speaker {record.speaker!r} {unfit}")
    text = record.text
    if units is NO_UNITS:
        return
    if not text.strip():
        yield Fault(Kind.EMPTY_TEXT)
    elif outside := units.outside(text):
        from fairseq_skd.corpora.alphabets import fix  # imported here: most corpora do not need it

        counts = Counter(outside)
        found = tuple(Outside(symbol, count, fix(symbol, units)) for symbol, count in counts.items())
        yield Fault(Kind.ALPHABET, " ".join(map(repr, counts)), found)
    elif text != text.strip(" ") or "  " in text:
        yield Fault(Kind.ALPHABET, "a space at its beginning or end, or two in a row")
    elif units.name != Symbols.name and not any(map(_sounds, text)):
        yield Fault(Kind.EMPTY_TEXT, f"it has no letter, only {' '.join(map(ascii, dict.fromkeys(text)))}")
    elif lack := units.missing(text):
        yield Fault(Kind.ALPHABET, lack)


def _sounds(character: str) -> bool:
    """Whether a character alone can be a transcript: no apostrophe, joiner or combining mark."""
    return character not in "' \u200c\u200d" and unicodedata.category(character)[0] != "M"


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
