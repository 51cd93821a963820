"""Reading LibriSpeech: ``SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` beside the chapter's FLAC files."""

import os
from collections.abc import Sequence
from pathlib import Path

from fairseq_skd.corpora.problems import Fault, Kind, Problem
from fairseq_skd.corpora.records import Corpus, Record
from fairseq_skd.corpora.splits import choose
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import numbered_lines

_SUFFIXES = (".flac", ".wav", ".ogg")
_TRANSCRIPTS = ".trans.txt"


def read_librispeech(root: Path, splits: Sequence[str] | None = None) -> Corpus:
    """Read the utterances of a LibriSpeech tree.

    Args:
        root: the folder of the splits (train-clean-100, dev-clean, ...), or the one that holds it as ``LibriSpeech``.
        splits: see :func:`fairseq_skd.corpora.splits.choose`; None takes all that are there.

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
