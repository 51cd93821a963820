"""Words from units: exactly the text of post_process, and the right units for each word."""

import doctest

import numpy as np
import pytest
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process

from fairseq_skd.files.units import POST_PROCESSES
from fairseq_skd.search.forced import align_units
from fairseq_skd.transcription import words
from fairseq_skd.transcription.words import Transcript, spell, timed_words
from tests.builders import letter_dictionary

SYMBOLS = ["A", "BC", "|", "\u2581", "\u2581A", "_", "A_", "_EOW", "B_EOW", "<SIL>", "A@@", "@@", "D"]


@pytest.mark.parametrize("process", POST_PROCESSES)
def test_any_units_give_the_text_of_post_process(process: str) -> None:
    """Random units, with fairseq's own symbols among them; each character belongs to its unit."""
    dictionary = Dictionary()
    for symbol in SYMBOLS:
        if process == "wordpiece" and symbol == "B_EOW":
            continue  # would be two words at once
        dictionary.add_symbol(symbol)
    rng = np.random.default_rng(0)
    for size in [0, 1, 2, 3, *[9] * 60]:
        units = rng.integers(1, len(dictionary), size).tolist()
        found = spell(units, dictionary, process)
        assert found.text == post_process(dictionary.string(units), process)
        assert found.words == [word for word in found.text.split(" ") if word]
        last = 0
        for word, (first, end) in zip(found.words, found.spans, strict=True):
            assert last <= first < end <= size
            last = end
            assert spell(units[first:end], dictionary, process).text.replace(" ", "") == word.replace(" ", "")


@pytest.mark.parametrize(
    ("process", "symbols", "expected"),
    [
        ("letter", "G O | O N |", [("GO", (0, 2)), ("ON", (3, 5))]),
        ("letter", "| A", [("A", (1, 2))]),
        ("sentencepiece", "\u2581GO \u2581 O N", [("GO", (0, 1)), ("ON", (2, 4))]),
        ("none", "AA B", [("AA", (0, 1)), ("B", (1, 2))]),
        ("silence", "AA <SIL> B", [("AA", (0, 1)), ("B", (2, 3))]),
        ("subword_nmt", "GO@@ ING ON", [("GOING", (0, 2)), ("ON", (2, 3))]),
        ("_EOW", "GO N_EOW A", [("GON", (0, 2)), ("A", (2, 3))]),
    ],
)
def test_units_of_words(process: str, symbols: str, expected: list[tuple[str, tuple[int, int]]]) -> None:
    dictionary = Dictionary()
    units = [dictionary.add_symbol(symbol) for symbol in symbols.split()]
    found = spell(units, dictionary, process)
    assert list(zip(found.words, found.spans, strict=True)) == expected


def test_times_and_confidence_by_hand() -> None:
    """Frames of 20 ms: A on 0 and 1, blank, B on 3, | on 4, A on 5."""
    dictionary = letter_dictionary()
    a, b, end = (dictionary.index(symbol) for symbol in "AB|")
    path, heights = [a, a, 0, b, end, a], [0.6, 0.9, 0.8, 0.4, 0.7, 0.5]
    log_probs = np.full((6, len(dictionary)), -9.0)
    log_probs[range(6), path] = np.log(heights)
    units = [a, b, end, a]
    text, names, spans = spell(units, dictionary, "letter")
    one, two = timed_words(names, spans, align_units(log_probs, units), 0.02)
    assert (text, one.text, one.start, one.end, one.confidence) == ("AB A", "AB", 0.0, 0.08, 0.6)  # sqrt(0.9 * 0.4)
    assert (two.text, two.start, two.end, two.confidence) == ("A", 0.1, 0.12, 0.5)


def test_a_transcript_is_its_text() -> None:
    assert f"{Transcript('GO ON', (), 0.0, 1.0, 0.0)}" == "GO ON"


def test_the_example() -> None:
    assert doctest.testmod(words).failed == 0
