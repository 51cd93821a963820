"""Error rates over a whole set (errors and lengths are summed first, divided last), and decoded texts, counted."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import editdistance

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import read_lines, read_speakers


class ErrorCount(NamedTuple):
    """Edit errors against a reference of ``total`` symbols (words, characters or units)."""

    errors: int
    total: int

    def __add__(self, other: tuple[int, ...]) -> "ErrorCount":  # type: ignore[override]
        """Pool two counts."""
        errors, total = other
        return ErrorCount(self.errors + errors, self.total + total)

    @property
    def rate(self) -> float:
        """Errors in percent of the reference; not a number when the reference is empty."""
        return 100.0 * self.errors / self.total if self.total else float("nan")


def count_errors(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> ErrorCount:
    """Levenshtein distance between two symbol sequences, with the reference's length."""
    return ErrorCount(editdistance.eval(hypothesis, reference), len(reference))


def utterance_errors(folder: Path, characters: bool = False) -> list[ErrorCount]:
    """Word errors of each utterance that ``fairseq_skd.infer`` decoded into a folder, in the manifest's order.

    Args:
        folder: ``common_eval.results_path``.
        characters: those of characters instead; one is of the words, or the one space between two of them.

    Raises:
        UserError: ``hypo.word`` or ``ref.word`` is missing, is empty, or is not as long as the other; or summary.json
            is not theirs, because the decoding was cut off or they were changed.
    """
    files = [folder / name for name in ("hypo.word", "ref.word")]
    try:
        texts = [[text.split() for text in read_texts(file)] for file in files]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; decode into {folder} again") from error
    if len(texts[0]) != len(texts[1]) or not texts[0]:
        raise UserError(f"{files[0]} has {len(texts[0])} lines, {files[1]} {len(texts[1])}: decode into {folder} again")
    words = [count_errors(hypothesis, reference) for hypothesis, reference in zip(*texts, strict=True)]
    if sum(words, ErrorCount(0, 0)) != _counts(folder / "summary.json"):
        raise UserError(
            f"{folder} is incomplete: its hypo.word and ref.word have no summary.json, or that of another decoding; "
            f"decode into it again"
        )
    if characters:
        spelt = [(" ".join(hypothesis), " ".join(reference)) for hypothesis, reference in zip(*texts, strict=True)]
        return [count_errors(hypothesis, reference) for hypothesis, reference in spelt]
    return words


def utterance_speakers(folder: Path, manifest: Path) -> list[str] | None:
    """Speaker of each utterance that ``fairseq_skd.infer`` decoded into a folder, in the order of ``hypo.word``.

    Args:
        folder: ``common_eval.results_path``.
        manifest: what was decoded, as ``summary.json`` names it.

    Returns:
        None if no ``<split>.spk`` lies beside the manifest.

    Raises:
        UserError: that file has not one speaker per utterance, or the manifest now lists fewer than were decoded.
    """
    speakers = read_speakers(manifest)
    if speakers is None:
        return None
    places = [int(line.rpartition("-")[2].rstrip(")")) for line in read_lines(folder / "hypo.word")]
    if max(places, default=0) >= len(speakers):
        raise UserError(f"{manifest} lists {len(speakers)} utterances, {folder} holds more: decode into it again")
    return [speakers[place] for place in places]


def _counts(summary: Path) -> ErrorCount | None:
    """Word errors and words of a summary; None if it is missing or was cut off."""
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return ErrorCount(found["word_errors"], found["words"])


def read_texts(file: Path) -> list[str]:
    """Lines of ``hypo.word`` or ``ref.word`` without the place in the manifest that each ends with.

    Raises:
        OSError: the file cannot be read.
        UserError: not UTF-8.
    """
    return [line.rpartition(" (")[0] for line in read_lines(file)]
