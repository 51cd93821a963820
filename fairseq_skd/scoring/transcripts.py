"""Transcripts: units to words, errors counted, written in fairseq's form and read back.

Error rates are those of a whole set: errors and reference lengths are summed first, divided last.
"""

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import editdistance
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process
from tqdm import tqdm

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import read_lines, read_speakers, replacing
from fairseq_skd.files.progress import PATIENCE, STYLE
from fairseq_skd.files.subset import units_of
from fairseq_skd.search.greedy import Hypothesis


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


NO_CHARACTER = "\ufffd"
_LATE: dict[str, Any] = {"delay": PATIENCE, "leave": False, **STYLE}


class Transcript(NamedTuple):
    """One side of a comparison, one entry per utterance, in manifest order.

    Attributes:
        units: symbols with spaces between.
        words: text after ``common_eval.post_process``.
    """

    units: list[str]
    words: list[str]

    def of(self, indices: Sequence[int]) -> "Transcript":
        """The transcript of some utterances."""
        return Transcript([self.units[index] for index in indices], [self.words[index] for index in indices])


class Score(NamedTuple):
    """Errors of the whole set, over words and over characters."""

    words: ErrorCount
    characters: ErrorCount


def transcribe(units: Sequence[Sequence[int]], dictionary: Dictionary, process: str) -> Transcript:
    """Units to text.

    Args:
        units: indices in ``dictionary``, one sequence an utterance.
        dictionary: of the labels.
        process: how units make words, one of fairseq's ``post_process`` names.
    """
    texts = [dictionary.string(sequence) for sequence in tqdm(units, "spelling out", unit="utterance", **_LATE)]
    return Transcript(texts, [post_process(text, process) for text in texts])


def transcribe_references(
    references: Sequence[Sequence[str]], dictionary: Dictionary, process: str
) -> tuple[Transcript, Counter[str]]:
    """References to text. They may hold unknown symbols: symbols that the dictionary lacks, and fairseq's own.

    ``units`` keep unknown symbols as they are written. In ``words``, :data:`NO_CHARACTER` stands for an unknown symbol
    that is no character: fairseq's own, such as ``<unk>``, and with letters any symbol of several characters.

    Args:
        references: units of each utterance.
        dictionary: of the labels.
        process: how units make words, one of fairseq's ``post_process`` names.

    Returns:
        the transcript, and how often each unknown symbol occurs.
    """
    known = units_of(dictionary)
    unknown = Counter(symbol for units in references for symbol in units if symbol not in known)
    written = {
        symbol: NO_CHARACTER
        for symbol in unknown
        if symbol in dictionary.indices or (process == "letter" and len(symbol) > 1)
    }
    words = [post_process(" ".join(written.get(symbol, symbol) for symbol in units), process) for units in references]
    return Transcript([" ".join(units) for units in references], words), unknown


def transcribe_hypotheses(hypotheses: Sequence[Hypothesis], dictionary: Dictionary, process: str) -> Transcript:
    """Hypotheses to text; words of a lexicon stand as they are, others are made of the units."""
    units, words = transcribe([found.units for found in hypotheses], dictionary, process)
    for index, found in enumerate(hypotheses):
        if found.words is not None:
            words[index] = " ".join(found.words)
    return Transcript(units, words)


def score(hypothesis: Transcript, reference: Transcript) -> Score:
    """Count errors over all utterances; a character is one of the words or the one space between two of them."""
    words, characters = ErrorCount(0, 0), ErrorCount(0, 0)
    pairs = list(zip(hypothesis.words, reference.words, strict=True))
    for found, wanted in tqdm(pairs, "scoring", unit="utterance", **_LATE):
        words += count_errors(found.split(), wanted.split())
        characters += count_errors(" ".join(found.split()), " ".join(wanted.split()))
    return Score(words, characters)


def write_transcripts(folder: Path, hypothesis: Transcript, reference: Transcript, indices: Sequence[int]) -> None:
    """Write ``hypo.word``, ``hypo.units``, ``ref.word`` and ``ref.units``: ``TEXT (None-<index in manifest>)``.

    Args:
        folder: exists. It is incomplete until :func:`write_summary` has written, too.
        hypothesis: what was decoded.
        reference: the same utterances.
        indices: their places in the manifest.
    """
    for side, transcript in (("hypo", hypothesis), ("ref", reference)):
        for kind, texts in (("word", transcript.words), ("units", transcript.units)):
            lines = (f"{text} (None-{index})\n" for index, text in zip(indices, texts, strict=True))
            with replacing(folder / f"{side}.{kind}") as path:
                path.write_bytes("".join(lines).encode("utf-8"))


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary as JSON."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
