"""Alignments against hand-worked cases, all alignments of short texts, and editdistance."""

import doctest
import random
from types import ModuleType

import pytest

from fairseq_skd.scoring import edits, scores
from fairseq_skd.scoring.edits import Aligned, Edits, align, count_edits, display_width, show_alignment
from fairseq_skd.scoring.transcripts import count_errors


@pytest.mark.parametrize(
    ("hypothesis", "reference", "edits"),
    [
        ("THE CAT SAT", "THE CAT SAT", Edits(0, 0, 0, 3)),
        ("THE SAT", "THE CAT SAT", Edits(0, 0, 1, 3)),
        ("THE CAT CAT SAT", "THE CAT SAT", Edits(0, 1, 0, 3)),
        ("THE DOG SAT", "THE CAT SAT", Edits(1, 0, 0, 3)),
        ("A DOG SAT DOWN", "THE CAT SAT", Edits(2, 1, 0, 3)),
        ("", "THE CAT SAT", Edits(0, 0, 3, 3)),
        ("GO ON", "", Edits(0, 2, 0, 0)),
        ("", "", Edits(0, 0, 0, 0)),
    ],
)
def test_kinds_of_errors_by_hand(hypothesis: str, reference: str, edits: Edits) -> None:
    assert count_edits(align(hypothesis.split(), reference.split())) == edits


def test_the_space_is_a_character() -> None:
    assert count_edits(align("GOON", "GO ON")) == Edits(0, 0, 1, 5)


def every_alignment(hypothesis: list[str], reference: list[str]) -> list[Aligned]:
    """All ways to write one text below the other."""
    if not hypothesis or not reference:
        return [[(word, None) for word in reference] + [(None, word) for word in hypothesis]]
    first = (reference[0], hypothesis[0])
    return (
        [[first, *rest] for rest in every_alignment(hypothesis[1:], reference[1:])]
        + [[(first[0], None), *rest] for rest in every_alignment(hypothesis, reference[1:])]
        + [[(None, first[1]), *rest] for rest in every_alignment(hypothesis[1:], reference)]
    )


def test_no_alignment_has_fewer_errors() -> None:
    draw = random.Random(3)
    for _ in range(60):
        pair = [[draw.choice("AAB") for _ in range(draw.randrange(6))] for _ in "hr"]
        fewest = min(sum(a != b for a, b in one) for one in every_alignment(*pair))
        found = align(*pair)
        assert found in every_alignment(*pair)
        assert count_edits(found).errors == fewest


def test_errors_and_lengths_equal_those_of_infer() -> None:
    draw = random.Random(4)
    for length in (5, 60, 700):
        for _ in range(10):
            pair = [[draw.choice(["A", "B", "AB", "ÄB", "97"]) for _ in range(draw.randrange(length))] for _ in "hr"]
            for hypothesis, reference in (pair, [" ".join(words) for words in pair]):
                edits = count_edits(align(hypothesis, reference))
                assert (edits.errors, edits.total) == count_errors(hypothesis, reference)


def test_counts_are_added() -> None:
    total = sum([Edits(1, 2, 3, 10), Edits(0, 1, 0, 4)], Edits())
    assert total == Edits(1, 3, 3, 14)
    assert (total.errors, total.rate) == (7, 50.0)


def test_columns_below_each_other() -> None:
    shown = show_alignment(
        [("A", None), ("THE", "日本"), ("BAT", "BAT"), (None, "ON"), ("et", "e\u0301t"), ("in", "it")]
    )
    assert shown.splitlines() == [
        "REF:  A THE  BAT ** et in",
        "HYP:  * 日本 BAT ON e\u0301t it",
        "EVAL: D S        I  S  S",
    ]
    assert show_alignment([]) == "REF:\nHYP:\nEVAL:"


def test_long_utterances_are_broken_and_control_characters_escaped() -> None:
    words = [f"word{place}" for place in range(40)]
    lines = show_alignment(align([*words[:20], "x\x1b[2J", *words[20:]], words)).splitlines()
    assert len(lines) == 9 and all(display_width(line) <= 100 for line in lines)
    assert " ".join(line[6:] for line in lines[::3]).split() == [*words[:20], "*" * len(r"x\x1b[2J"), *words[20:]]
    assert "x\\x1b[2J" in lines[4] and "\x1b" not in "".join(lines)


@pytest.mark.parametrize("module", [edits, scores])
def test_the_examples(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 1 and found.failed == 0
