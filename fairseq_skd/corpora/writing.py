"""Writing utterances as fairseq's manifests (``<split>.tsv``, ``.ltr``, ``.wrd``, ``.spk``), dictionary and lexicon."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fairseq_skd.corpora.records import Fault, Kind, Problem, report
from fairseq_skd.corpora.validation import Utterance
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import named, numbered_lines
from fairseq_skd.files.units import Units, foreign_characters


def lexicon(words: Iterable[str], units: Units) -> str:
    """``WORD<TAB>W O R D |`` for each distinct word, sorted."""
    return "".join(f"{word}\t{' '.join(units.split(word))}\n" for word in sorted(set(words)))


def read_words(path: Path, units: Units) -> list[str]:
    """A list of words, one on each line.

    Raises:
        UserError: if it cannot be read or holds no word; or listing every line that is not one word in the alphabet.
    """
    words: list[str] = []
    problems: list[Problem] = []
    for line, word in numbered_lines(path):
        foreign = foreign_characters(word) + [" "] * (" " in word)
        reason = f"{word!r}: {' '.join(map(repr, foreign))}" if foreign else units.missing(word)
        problems += [Problem(Fault(Kind.ALPHABET, reason), str(path), line, "")] if reason else []
        words.append(word)
    if problems:
        raise UserError(f"the list of words is refused\n{report(problems, len(words))}")
    if not words:
        raise UserError(f"{path}: holds no word; put one on each line")
    return words


def by_split(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """The utterances of each split, splits and utterances in order of appearance."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        splits.setdefault(utterance.record.split, []).append(utterance)
    return splits


def speakers_known(members: Sequence[Utterance]) -> bool:
    """Whether each utterance of a split has a speaker, so that ``<split>.spk`` is written."""
    return all(member.record.speaker for member in members)


def write_labels(utterances: Sequence[Utterance], folder: Path, units: Units, others: Mapping[str, bytes]) -> None:
    """Write what does not depend on the audio: transcripts, known speakers, the units' files, and ``others``.

    Args:
        utterances: those of all splits.
        folder: exists.
        units: what the transcripts are written in.
        others: more files, by name.
    """
    for split, members in by_split(utterances).items():
        texts = [member.record.text for member in members]
        _write(folder / f"{split}.{units.name}", [" ".join(units.split(text)) for text in texts])
        _write(folder / f"{split}.wrd", texts)
        if speakers_known(members):
            _write(folder / f"{split}.spk", [member.record.speaker for member in members])
    for name, content in {**units.files(), **others}.items():
        with named(folder / name):
            (folder / name).write_bytes(content)


def write_manifests(utterances: Sequence[Utterance], roots: Sequence[str], folder: Path) -> None:
    """Write ``<split>.tsv`` of all splits into ``folder``.

    Args:
        utterances: at 16 kHz.
        roots: absolute folders; each utterance's audio lies under one of them. A split's root line is the deepest
            folder that holds those of them that the split uses.
        folder: exists.
    """
    for split, members in by_split(utterances).items():
        used = [root for root in roots if any(_under(member.audio, root) for member in members)]
        root = os.path.commonpath(used)
        start = len(root.rstrip(os.sep)) + 1  # the paths are absolute and normal, so no relpath is needed
        _write(folder / f"{split}.tsv", [root, *(f"{member.audio[start:]}\t{member.samples}" for member in members)])


def _under(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write UTF-8 lines, each with its end, whatever the platform's habits are."""
    with named(path), open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
