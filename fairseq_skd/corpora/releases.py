"""Read released corpora: LibriSpeech, TED-LIUM, and STM files."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import Corpus, Fault, Kind, Problem, Record, Segment, choose
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import numbered_lines

IGNORED = "ignore_time_segment_in_scoring"
UNKNOWN = "<unk>"
_MARK = re.compile(r"\{[^{}\s]*\}|<sil>", re.IGNORECASE)
_PRONUNCIATION = re.compile(r"(?<=\S)\(\d+\)$")
_ENDINGS = frozenset({"'", "'s", "'t", "'d", "'m", "'ll", "'re", "'ve"})
_LABEL = re.compile(r"<[^<>]*>")


class StmSegment(NamedTuple):
    """A line of an STM file; start and end are in seconds, the text is unchanged."""

    recording: str
    speaker: str
    start: float
    end: float
    text: str
    line: int


def read_stm(path: Path) -> tuple[list[StmSegment], list[Problem]]:
    """Read the segments of an STM file, and find its malformed lines.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    segments: list[StmSegment] = []
    problems: list[Problem] = []
    for line, content in numbered_lines(path):
        if content.startswith(";;"):
            continue
        fields = content.split(None, 5)
        try:
            recording, _, speaker, start, end = fields[:5]
            rest = fields[5] if len(fields) > 5 else ""
            label = _LABEL.match(rest)
            if label and label.group().lower() not in (UNKNOWN, "<sil>"):  # the label is optional in STM
                rest = rest[label.end() :]
            times = float(start), float(end)
            if not all(map(math.isfinite, times)):
                raise ValueError
            segments.append(StmSegment(recording, speaker, *times, rest.strip(), line))
        except ValueError:
            detail = "not a line 'recording channel speaker start end <label> text', times in seconds"
            problems.append(Problem(Fault(Kind.ROW, detail), str(path), line, fields[0]))
    return segments, problems


def plain_words(text: str, changes: Counter[str]) -> str:
    """Remove the marks of a transcript and join its apostrophes; ``<unk>`` stays.

    Args:
        text: text of an STM line.
        changes: counts the changes, by description.

    >>> plain_words("it 's the(2) end {NOISE}", Counter())
    "it's the end"
    """
    words: list[str] = []
    for word in text.split():
        if _MARK.fullmatch(word):
            changes["marks of noises and pauses removed ({NOISE}, <sil>)"] += 1
            continue
        spoken = _PRONUNCIATION.sub("", word)
        changes["pronunciation numbers removed: the(2) -> the"] += spoken != word
        if spoken.lower() in _ENDINGS and words and words[-1] != UNKNOWN:
            changes["apostrophes joined to the previous word: it 's -> it's"] += 1
            words[-1] += spoken
        else:
            words.append(spoken)
    return " ".join(words)


SPLITS = ("train", "dev", "test")
_ALL = "data"  # in release 3: every talk for training, including the talks of its legacy splits


def read_tedlium(root: Path, splits: Sequence[str] | None = None, drop_unknown: bool = False) -> Corpus:
    """Read the segments of TED-LIUM, release 2 or 3.

    Args:
        root: ``TEDLIUM_release2`` (train, dev, test), ``TEDLIUM_release-3`` (legacy with these
            three, and data), or the folder above it. Each split's folder has ``stm`` and ``sph``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes train, dev and test.
        drop_unknown: remove ``<unk>`` from the text instead of leaving the segment out.

    Raises:
        UserError: ``root`` has no split, or a split of ``splits`` does not exist.
    """
    root, folders = _find(root)
    default = [split for split in SPLITS if split in folders] or list(folders)
    records: list[Record] = []
    problems: list[Problem] = []
    changes: Counter[str] = Counter()
    for split, sources in choose(folders, splits, default).items():
        for folder in sources:
            for stm in sorted((root / folder / "stm").glob("*.stm")):
                segments, faults = read_stm(stm)
                problems += faults
                for segment in segments:
                    record = _record(segment, split, root, folder, stm, drop_unknown, changes)
                    records += [record] if record else []
    notes = [f"{count} {change}" for change, count in sorted(changes.items()) if count]
    return Corpus("TED-LIUM", records, problems, root, notes, "en")


def _find(root: Path) -> tuple[Path, dict[str, str]]:
    """Find the folder of the release, and the folder of each split under it."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of the release")
    for place in (root, root / "TEDLIUM_release2", root / "TEDLIUM_release-3"):
        candidates = {
            split: next((name for name in (split, f"legacy/{split}") if (place / name / "stm").is_dir()), "")
            for split in (*SPLITS, _ALL)
        }
        found = {split: folder for split, folder in candidates.items() if folder}
        if found:
            return place, found
    raise UserError(
        f"{root}: holds no split of TED-LIUM, train/stm or legacy/train/stm; give the folder of the release"
    )


def _record(
    segment: StmSegment, split: str, root: Path, folder: str, stm: Path, drop_unknown: bool, changes: Counter[str]
) -> Record | None:
    """Make the record of a segment; None if its text is unknown."""
    if segment.text.strip().lower() == IGNORED:
        changes[f"segments marked {IGNORED} left out"] += 1
        return None
    text = plain_words(segment.text, changes)
    if UNKNOWN in text.split():
        if not drop_unknown:
            changes[f"segments with {UNKNOWN}, a word that was not transcribed, left out"] += 1
            return None
        changes[f"texts from which {UNKNOWN} was removed"] += 1
        text = " ".join(word for word in text.split() if word != UNKNOWN)
    if not text:
        changes["segments without words left out"] += 1
        return None
    audio = f"{folder}/sph/{segment.recording}.sph"
    if not (root / audio).is_file() and (root / _ALL / "sph").is_dir():
        audio = f"{_ALL}/sph/{segment.recording}.sph"
    name = f"{segment.recording}-{round(100 * segment.start):07d}-{round(100 * segment.end):07d}"
    part = Segment(name, segment.start, segment.end)
    return Record(audio, text, split, segment.speaker, str(stm), segment.line, part)


_SUFFIXES = (".flac", ".wav", ".ogg")
_TRANSCRIPTS = ".trans.txt"


def read_librispeech(root: Path, splits: Sequence[str] | None = None) -> Corpus:
    """Read the utterances of a LibriSpeech tree.

    Args:
        root: the folder of the splits (train-clean-100, dev-clean, ...), or the folder above it,
            which contains ``LibriSpeech``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes all.

    Raises:
        UserError: ``root`` has no split, or a split of ``splits`` does not exist.
    """
    folders = _split_folders(root)
    if not folders and (root / "LibriSpeech").is_dir():
        root = root / "LibriSpeech"
        folders = _split_folders(root)
    if not folders:
        layout = f"SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER{_TRANSCRIPTS}"
        raise UserError(f"{root}: holds no split of LibriSpeech, {layout}; give the folder above the splits")
    records: list[Record] = []
    problems: list[Problem] = []
    for split, sources in choose(folders, splits, list(folders)).items():
        for folder in sources:
            for speaker in _folders(root / folder):
                for chapter in _folders(root / folder / speaker):
                    _read_chapter(root, f"{folder}/{speaker}/{chapter}", split, records, problems)
    return Corpus("LibriSpeech", records, problems, root, language="en")


def _split_folders(root: Path) -> dict[str, str]:
    """Find the folders under ``root`` with transcripts two levels below."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder above the splits of LibriSpeech")
    return {name: name for name in _folders(root) if next((root / name).glob(f"*/*/*{_TRANSCRIPTS}"), None)}


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _read_chapter(root: Path, chapter: str, split: str, records: list[Record], problems: list[Problem]) -> None:
    """Append a chapter's utterances, and problems for audio without a line.

    The validation finds lines without audio.
    """
    speaker, number = chapter.split("/")[-2:]
    transcripts = root / chapter / f"{speaker}-{number}{_TRANSCRIPTS}"
    source = str(transcripts)
    names = sorted(os.listdir(root / chapter))
    audio = {name.rpartition(".")[0]: name for name in names if name.endswith(_SUFFIXES)}
    if not transcripts.is_file():
        fault = Fault(Kind.UNPAIRED, f"no {transcripts.name} for {len(audio)} audio files")
        problems += [Problem(fault, source, 1, chapter)] if audio else []
        return
    for line, content in numbered_lines(transcripts):
        utterance, _, text = content.partition(" ")
        name = audio.pop(utterance, f"{utterance}.flac")
        records.append(Record(f"{chapter}/{name}", text, split, speaker, source, line))
    fault = Fault(Kind.UNPAIRED, "no line of transcript")
    problems += [Problem(fault, source, 1, f"{chapter}/{name}") for name in audio.values()]
