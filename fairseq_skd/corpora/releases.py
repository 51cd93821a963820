"""Corpora as they were released: LibriSpeech's folders, STM files, and TED-LIUM."""

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


class Mark(NamedTuple):
    """A line of an STM file whose text is to be used, the text as the file has it."""

    recording: str
    speaker: str
    start: float
    end: float
    text: str
    line: int


def read_stm(path: Path) -> tuple[list[Mark], list[Problem]]:
    """The segments of an STM file, and its malformed lines.

    Raises:
        UserError: if the file cannot be read, or is not UTF-8.
    """
    marks: list[Mark] = []
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
            marks.append(Mark(recording, speaker, *times, rest.strip(), line))
        except ValueError:
            fault = Fault(Kind.ROW, "no line 'recording channel speaker start end <label> text', times in seconds")
            problems.append(Problem(fault, str(path), line, fields[0]))
    return marks, problems


def plain_words(text: str, changes: Counter[str]) -> str:
    """A transcript in plain words, marks removed and apostrophes joined; ``<unk>`` stays.

    Args:
        text: of an STM line.
        changes: counts what was done, by description.

    >>> plain_words("it 's the(2) end {NOISE}", Counter())
    "it's the end"
    """
    words: list[str] = []
    for word in text.split():
        if _MARK.fullmatch(word):
            changes["marks of sounds and pauses removed ({NOISE}, <sil>)"] += 1
            continue
        spoken = _PRONUNCIATION.sub("", word)
        changes["numbers of pronunciations removed: the(2) -> the"] += spoken != word
        if spoken.lower() in _ENDINGS and words and words[-1] != UNKNOWN:
            changes["apostrophes joined to the word before: it 's -> it's"] += 1
            words[-1] += spoken
        else:
            words.append(spoken)
    return " ".join(words)


SPLITS = ("train", "dev", "test")
_ALL = "data"  # of release 3: every talk for training, also those that its legacy splits hold


def read_tedlium(root: Path, splits: Sequence[str] | None = None, drop_unknown: bool = False) -> Corpus:
    """Read the segments of a release.

    Args:
        root: ``TEDLIUM_release2`` (train, dev, test), ``TEDLIUM_release-3`` (legacy with these three, and data), or the
            folder above it; in each split's folder there are ``stm`` and ``sph``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes train, dev and test.
        drop_unknown: leave ``<unk>`` out of the text instead of leaving the segment out.

    Raises:
        UserError: if there is no split, or none of that name.
    """
    root, folders = _find(root)
    default = [split for split in SPLITS if split in folders] or list(folders)
    records: list[Record] = []
    problems: list[Problem] = []
    changes: Counter[str] = Counter()
    for split, sources in choose(folders, splits, default).items():
        for folder in sources:
            for stm in sorted((root / folder / "stm").glob("*.stm")):
                marks, faults = read_stm(stm)
                problems += faults
                for mark in marks:
                    record = _record(mark, split, root, folder, stm, drop_unknown, changes)
                    records += [record] if record else []
    notes = [f"{count} {change}" for change, count in sorted(changes.items()) if count]
    return Corpus("TED-LIUM", records, problems, root, notes)


def _find(root: Path) -> tuple[Path, dict[str, str]]:
    """The release's folder and its splits' folders under it."""
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
    mark: Mark, split: str, root: Path, folder: str, stm: Path, drop_unknown: bool, changes: Counter[str]
) -> Record | None:
    """The utterance of a segment, or None if its text is not known."""
    if mark.text.strip().lower() == IGNORED:
        changes[f"segments marked {IGNORED} left out"] += 1
        return None
    text = plain_words(mark.text, changes)
    if UNKNOWN in text.split():
        if not drop_unknown:
            changes[f"segments left out for {UNKNOWN}, a word that nobody wrote down"] += 1
            return None
        changes[f"texts of which {UNKNOWN} was left out"] += 1
        text = " ".join(word for word in text.split() if word != UNKNOWN)
    if not text:
        changes["segments without a word left out"] += 1
        return None
    audio = f"{folder}/sph/{mark.recording}.sph"
    if not (root / audio).is_file() and (root / _ALL / "sph").is_dir():
        audio = f"{_ALL}/sph/{mark.recording}.sph"
    name = f"{mark.recording}-{round(100 * mark.start):07d}-{round(100 * mark.end):07d}"
    return Record(audio, text, split, mark.speaker, str(stm), mark.line, Segment(name, mark.start, mark.end))


_SUFFIXES = (".flac", ".wav", ".ogg")
_TRANSCRIPTS = ".trans.txt"


def read_librispeech(root: Path, splits: Sequence[str] | None = None) -> Corpus:
    """Read the utterances of a LibriSpeech tree.

    Args:
        root: the folder of the splits (train-clean-100, dev-clean, ...), or the one that holds it as ``LibriSpeech``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes all that are there.

    Raises:
        UserError: if there is no split, or none of that name.
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
    return Corpus("LibriSpeech", records, problems, root)


def _split_folders(root: Path) -> dict[str, str]:
    """The folders under ``root`` that hold transcripts two levels below."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder above the splits of LibriSpeech")
    return {name: name for name in _folders(root) if next((root / name).glob(f"*/*/*{_TRANSCRIPTS}"), None)}


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _read_chapter(root: Path, chapter: str, split: str, records: list[Record], problems: list[Problem]) -> None:
    """Append a chapter's utterances; a line without its audio is found by the validation, the reverse is here."""
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
    fault = Fault(Kind.UNPAIRED, "no line for it")
    problems += [Problem(fault, source, 1, f"{chapter}/{name}") for name in audio.values()]
