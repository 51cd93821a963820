"""What decoding leaves behind: four text files in fairseq's format, error counts and ``summary.json``."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process

from fairseq_skd.files.disk import replacing
from fairseq_skd.files.subset import units_of
from fairseq_skd.scoring.error_rates import ErrorCount, count_errors
from fairseq_skd.search.beam import Hypothesis

NO_CHARACTER = "\ufffd"


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
    texts = [dictionary.string(sequence) for sequence in units]
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
    for found, wanted in zip(hypothesis.words, reference.words, strict=True):
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
