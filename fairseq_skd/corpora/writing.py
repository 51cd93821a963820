"""Write manifests (``<split>.tsv``, ``.ltr``, ``.wrd``, ``.spk``), dictionary and lexicon."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fairseq_skd.corpora.records import Fault, Kind, Problem, report
from fairseq_skd.corpora.validation import Utterance
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import named, numbered_lines
from fairseq_skd.files.units import NO_UNITS, Units, foreign_characters


def lexicon(words: Iterable[str], units: Units) -> str:
    """Write ``WORD<TAB>W O R D |`` for each distinct word, sorted."""
    return "".join(f"{word}\t{' '.join(units.split(word))}\n" for word in sorted(set(words)))


def read_words(path: Path, units: Units) -> list[str]:
    """Read a list of words, one per line.

    Raises:
        UserError: the file cannot be read or has no words, or some lines are not one word that the
            units can spell; the message lists all of these lines.
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
        raise UserError(f"{path}: holds no words; write one per line")
    return words


def by_split(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Group utterances by split, both in order of appearance."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        splits.setdefault(utterance.record.split, []).append(utterance)
    return splits


def speakers_known(members: Sequence[Utterance]) -> bool:
    """Tell whether every utterance of a split has a speaker, so that ``<split>.spk`` is written."""
    return all(member.record.speaker for member in members)


def write_labels(utterances: Sequence[Utterance], folder: Path, units: Units, others: Mapping[str, bytes]) -> None:
    """Write the files that do not depend on audio: transcripts, speakers, dictionary, ``others``.

    Args:
        utterances: utterances of all splits.
        folder: an existing folder.
        units: the units to spell transcripts in.
        others: more files, by name.
    """
    for split, members in by_split(utterances).items():
        if units is not NO_UNITS:
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
        utterances: utterances at 16 kHz.
        roots: absolute folders; each utterance's audio is under one of them. The first line of a
            manifest is the deepest folder that contains all roots that the split uses.
        folder: an existing folder.
    """
    for split, members in by_split(utterances).items():
        used = [root for root in roots if any(_under(member.audio, root) for member in members)]
        root = os.path.commonpath(used)
        start = len(root.rstrip(os.sep)) + 1  # the paths are absolute and normal, so no relpath is needed
        _write(folder / f"{split}.tsv", [root, *(f"{member.audio[start:]}\t{member.samples}" for member in members)])


def _under(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write UTF-8 lines with Unix line ends on every platform."""
    with named(path), open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
