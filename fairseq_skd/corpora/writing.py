"""Writing checked utterances as fairseq's manifests: ``<split>.tsv``, ``.ltr``, ``.wrd`` and ``dict.ltr.txt``."""

import os
from collections.abc import Sequence
from pathlib import Path

from fairseq_skd.corpora.units import letter_dictionary, letters
from fairseq_skd.corpora.validation import Utterance


def by_split(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """The utterances of each split, splits and utterances in order of appearance."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        splits.setdefault(utterance.record.split, []).append(utterance)
    return splits


def write_manifests(utterances: Sequence[Utterance], roots: Sequence[str], folder: Path) -> None:
    """Write the manifests of all splits and the letter dictionary into ``folder``.

    Args:
        utterances: at 16 kHz.
        roots: absolute folders; each utterance's audio lies under one of them. A split's root line is the deepest
            folder that holds those of them that the split uses.
        folder: exists.
    """
    for split, members in by_split(utterances).items():
        used = [root for root in roots if any(_under(member.audio, root) for member in members)]
        root = os.path.commonpath(used)
        audio = [f"{os.path.relpath(member.audio, root)}\t{member.samples}" for member in members]
        texts = [member.record.text for member in members]
        _write(folder / f"{split}.tsv", [root, *audio])
        _write(folder / f"{split}.ltr", [" ".join(letters(text)) for text in texts])
        _write(folder / f"{split}.wrd", texts)
    (folder / "dict.ltr.txt").write_text(letter_dictionary(), encoding="utf-8", newline="\n")


def _under(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Write UTF-8 lines, each with its end, whatever the platform's habits are."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
