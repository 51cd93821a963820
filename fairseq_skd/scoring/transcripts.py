"""Turn units into words, count errors, and write and read transcripts in fairseq's format.

Error rates are pooled over a whole set: sum of errors / sum of reference lengths.
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
    """Edit errors, and the length ``total`` of the reference in words, characters or units."""

    errors: int
    total: int

    def __add__(self, other: tuple[int, ...]) -> "ErrorCount":  # type: ignore[override]
        """Add up two counts."""
        errors, total = other
        return ErrorCount(self.errors + errors, self.total + total)

    @property
    def rate(self) -> float:
        """Errors in percent of the reference; NaN if the reference is empty."""
        return 100.0 * self.errors / self.total if self.total else float("nan")


def count_errors(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> ErrorCount:
    """Compute the Levenshtein distance of two symbol sequences.

    >>> count_errors("THE CAT".split(), "THE CAT SAT".split())
    ErrorCount(errors=1, total=3)
    """
    return ErrorCount(editdistance.eval(hypothesis, reference), len(reference))


def utterance_errors(folder: Path, characters: bool = False) -> list[ErrorCount]:
    """Count the word errors of each utterance in a results folder of ``fairseq_skd.infer``.

    Args:
        folder: ``common_eval.results_path``.
        characters: count character errors instead; a space between words is one character.

    Raises:
        UserError: ``hypo.word`` or ``ref.word`` is missing or empty, they differ in length, or
            ``summary.json`` does not match them: the decoding was interrupted, or a file changed.
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
            f"{folder} is incomplete: its hypo.word and ref.word have no summary.json, or one of another decoding; "
            f"decode into it again"
        )
    if characters:
        spelt = [(" ".join(hypothesis), " ".join(reference)) for hypothesis, reference in zip(*texts, strict=True)]
        return [count_errors(hypothesis, reference) for hypothesis, reference in spelt]
    return words


def utterance_speakers(folder: Path, manifest: Path) -> list[str] | None:
    """Find the speaker of each utterance in a results folder of ``fairseq_skd.infer``.

    Args:
        folder: ``common_eval.results_path``.
        manifest: the manifest that was decoded, as named in ``summary.json``.

    Returns:
        speakers in the order of ``hypo.word``; None if the manifest has no ``<split>.spk``.

    Raises:
        UserError: ``<split>.spk`` does not have one speaker per utterance, or the manifest now
            lists fewer utterances than were decoded.
    """
    speakers = read_speakers(manifest)
    if speakers is None:
        return None
    places = [int(line.rpartition("-")[2].rstrip(")")) for line in read_lines(folder / "hypo.word")]
    if max(places, default=0) >= len(speakers):
        raise UserError(f"{manifest} lists {len(speakers)} utterances, but {folder} holds more: decode into it again")
    return [speakers[place] for place in places]


def _counts(summary: Path) -> ErrorCount | None:
    """Read word errors and words of a summary; None if it is missing or incomplete."""
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
        return ErrorCount(found["word_errors"], found["words"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def read_texts(file: Path) -> list[str]:
    """Read the texts of ``hypo.word`` or ``ref.word``, without the index at the end of each line.

    Raises:
        OSError: the file cannot be read.
        UserError: the file is not UTF-8.
    """
    return [line.rpartition(" (")[0] for line in read_lines(file)]


NO_CHARACTER = "\ufffd"
_LATE: dict[str, Any] = {"delay": PATIENCE, "leave": False, **STYLE}


class Transcript(NamedTuple):
    """Hypotheses or references, one entry per utterance, in manifest order.

    Attributes:
        units: symbols of the dictionary, separated by spaces.
        words: text after ``common_eval.post_process``.
    """

    units: list[str]
    words: list[str]

    def of(self, indices: Sequence[int]) -> "Transcript":
        """Select some utterances."""
        return Transcript([self.units[index] for index in indices], [self.words[index] for index in indices])


class Score(NamedTuple):
    """Word errors and character errors of a whole set."""

    words: ErrorCount
    characters: ErrorCount


def transcribe(units: Sequence[Sequence[int]], dictionary: Dictionary, process: str) -> Transcript:
    """Turn units into text.

    Args:
        units: indices in ``dictionary``, one sequence per utterance.
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.
    """
    texts = [dictionary.string(sequence) for sequence in tqdm(units, "spelling out", unit="utterance", **_LATE)]
    return Transcript(texts, [post_process(text, process) for text in texts])


def transcribe_references(
    references: Sequence[Sequence[str]], dictionary: Dictionary, process: str
) -> tuple[Transcript, Counter[str]]:
    """Turn references into text, including symbols that are unknown to the dictionary.

    fairseq's own symbols count as unknown. ``units`` keep unknown symbols unchanged. In ``words``,
    :data:`NO_CHARACTER` replaces fairseq's own symbols, such as ``<unk>``, and with letters every
    unknown symbol of several characters.

    Args:
        references: units of each utterance.
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.

    Returns:
        the transcript, and the count of each unknown symbol.
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
    """Turn hypotheses into text: words of a lexicon if there are any, else words made of units."""
    units, words = transcribe([found.units for found in hypotheses], dictionary, process)
    for index, found in enumerate(hypotheses):
        if found.words is not None:
            words[index] = " ".join(found.words)
    return Transcript(units, words)


def score(hypothesis: Transcript, reference: Transcript) -> Score:
    """Count errors over all utterances; a space between words counts as one character."""
    words, characters = ErrorCount(0, 0), ErrorCount(0, 0)
    pairs = list(zip(hypothesis.words, reference.words, strict=True))
    for found, wanted in tqdm(pairs, "scoring", unit="utterance", **_LATE):
        words += count_errors(found.split(), wanted.split())
        characters += count_errors(" ".join(found.split()), " ".join(wanted.split()))
    return Score(words, characters)


def write_transcripts(
    folder: Path, hypothesis: Transcript, reference: Transcript | None, indices: Sequence[int]
) -> None:
    """Write ``hypo.word`` and ``hypo.units``, and the references as ``ref.word`` and ``ref.units``.

    Each line is ``TEXT (None-<index in manifest>)``, as fairseq's decoder writes it.

    Args:
        folder: results folder; it is incomplete until :func:`write_summary` has written there, too.
        hypothesis: hypotheses.
        reference: references of the same utterances; None: files of an earlier decode are removed.
        indices: indices of the utterances in the manifest.
    """
    for side, transcript in (("hypo", hypothesis), ("ref", reference)):
        if transcript is None:
            for kind in ("word", "units"):
                (folder / f"{side}.{kind}").unlink(missing_ok=True)
            continue
        for kind, texts in (("word", transcript.words), ("units", transcript.units)):
            lines = (f"{text} (None-{index})\n" for index, text in zip(indices, texts, strict=True))
            with replacing(folder / f"{side}.{kind}") as path:
                path.write_bytes("".join(lines).encode("utf-8"))


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary as JSON."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
