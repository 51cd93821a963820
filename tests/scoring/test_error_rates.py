"""Edit errors against a textbook dynamic program, and the pooling of counts."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from fairseq_skd.scoring.transcripts import ErrorCount, count_errors


def levenshtein(a: Sequence, b: Sequence) -> int:
    """Row by row; insertions in a row are a running minimum of the cost minus the column."""
    columns = np.arange(len(b) + 1)
    symbols = np.array(b, dtype=object)
    row = columns
    for i, symbol in enumerate(a, start=1):
        replaced_or_deleted = np.minimum(row[1:] + 1, row[:-1] + (symbols != symbol))
        row = np.minimum.accumulate(np.concatenate([[i], replaced_or_deleted]) - columns) + columns
    return int(row[-1])


@pytest.mark.parametrize(
    ("hypothesis", "reference", "errors"),
    [
        ("THE CAT SAT", "THE CAT SAT", 0),
        ("THE CAT", "THE CAT SAT", 1),
        ("A THE CAT SAT", "THE CAT SAT", 1),
        ("THE DOG SAT", "THE CAT SAT", 1),
        ("", "THE CAT SAT", 3),
        ("CAT THE", "THE CAT", 2),
    ],
)
def test_words_by_hand(hypothesis: str, reference: str, errors: int) -> None:
    assert count_errors(hypothesis.split(), reference.split()) == (errors, len(reference.split()))


def test_an_empty_reference_counts_insertions() -> None:
    count = count_errors(["A", "B"], [])
    assert count == ErrorCount(2, 0)
    assert math.isnan(count.rate)
    assert (count + ErrorCount(0, 8)).rate == 25.0


def test_characters_of_a_string() -> None:
    assert count_errors("KITTEN", "SITTING") == ErrorCount(3, 7)


@pytest.mark.parametrize("symbols", [2, 5, 40])
def test_equals_the_dynamic_program(symbols: int) -> None:
    draw = random.Random(symbols)
    for _ in range(40):
        a, b = ([draw.randrange(symbols) for _ in range(draw.randrange(90))] for _ in range(2))
        assert count_errors(a, b) == (levenshtein(a, b), len(b))
        words = [f"w{unit}" for unit in a], [f"w{unit}" for unit in b]
        assert count_errors(*words) == (levenshtein(a, b), len(b))


@pytest.mark.parametrize("length", [63, 64, 65, 639, 640, 641, 700])
def test_long_sequences(length: int) -> None:
    # editdistance works in blocks of 64 symbols, and uses another algorithm above ten blocks.
    draw = random.Random(length)
    a = [draw.randrange(4) for _ in range(length)]
    b = [unit for unit in a if draw.random() > 0.1] + [7]
    assert count_errors(a, b).errors == levenshtein(a, b)


def test_pooled_rates_weigh_by_length() -> None:
    short, long = ErrorCount(1, 1), ErrorCount(0, 9)
    assert (short.rate, long.rate) == (100.0, 0.0)
    assert (short + long).rate == 10.0  # errors over words of the whole set, not the mean of 100 and 0


def test_counts_are_added_not_concatenated() -> None:
    counts = [ErrorCount(1, 4), ErrorCount(2, 5), ErrorCount(0, 1)]
    total = sum(counts, ErrorCount(0, 0))
    assert isinstance(total, ErrorCount)
    assert total == (3, 10)
    assert total.rate == 30.0
    running = ErrorCount(0, 0)
    for count in counts:
        running += count
    assert running == total
    assert counts[0] == ErrorCount(1, 4)


def test_more_errors_than_words() -> None:
    assert count_errors(["A", "B", "C"], ["D"]).rate == 300.0
