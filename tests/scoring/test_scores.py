"""Pooled figures against those of infer, and intervals against the bootstrap of rates."""

import random

import pytest

from fairseq_skd.scoring.bootstrap import paired_difference, rate_interval
from fairseq_skd.scoring.scores import compare, score_texts, show_alignments, summarize
from fairseq_skd.scoring.transcripts import Transcript, score

REFERENCES = ["THE CAT SAT", "GO ON", "", "NO"]
HYPOTHESES = ["THE BAT SAT", "GOON", "A", "NO"]


def test_by_hand() -> None:
    """CAT -> BAT; GO -> GOON and ON deleted, or ON -> GOON and GO deleted; A inserted."""
    found = summarize(score_texts(list("abcd"), HYPOTHESES, REFERENCES))
    assert (found["word_errors"], found["words"], found["wer"]) == (4, 6, 66.6667)
    assert [found[f"word_{kind}"] for kind in ("substitutions", "insertions", "deletions")] == [2, 1, 1]
    assert (found["character_errors"], found["characters"], found["cer"]) == (3, 18, 16.6667)
    assert (found["sentence_errors"], found["sentences"], found["ser"]) == (3, 4, 75.0)
    assert found["insertions"] == [{"hypothesis": "A", "count": 1}]
    assert found["utterances"][1] == {
        "name": "b",
        "word_errors": 2,
        "words": 2,
        "character_errors": 1,
        "characters": 5,
    }


def test_figures_equal_those_of_infer() -> None:
    draw = random.Random(5)
    hypotheses, references = (
        [" ".join(draw.choices(["A", "AB", "B", "CAB"], k=draw.randint(0, 9))) for _ in range(60)] for _ in "hr"
    )
    words, characters = score(Transcript([], hypotheses), Transcript([], references))
    found = summarize(score_texts([str(place) for place in range(60)], hypotheses, references))
    assert (found["word_errors"], found["words"], found["wer"]) == (*words, round(words.rate, 4))
    assert (found["character_errors"], found["characters"], found["cer"]) == (*characters, round(characters.rate, 4))


def test_intervals_over_utterances_and_speakers() -> None:
    speakers = ["ann", "ann", "bob", "bob"]
    found = summarize(score_texts(list("abcd"), HYPOTHESES, REFERENCES, speakers))
    errors, totals = [1, 2, 1, 0], [3, 2, 0, 1]
    for drawn, groups in (("utterances", None), ("speakers", speakers)):
        _, low, high = rate_interval(errors, totals, groups)
        assert found["intervals"][drawn]["wer"] == [round(100 * low, 4), round(100 * high, 4)]
        assert low < 4 / 6 < high
    assert found["speakers"] == 2
    for few in (None, ["ann"] * 4):
        assert "speakers" not in summarize(score_texts(list("abcd"), HYPOTHESES, REFERENCES, few))["intervals"]


def test_the_most_frequent_substitutions_come_first() -> None:
    found = summarize(score_texts(["a", "b"], ["X B X", "X C"], ["A B A", "A A"]))
    assert found["substitutions"] == [
        {"reference": "A", "hypothesis": "X", "count": 3},
        {"reference": "A", "hypothesis": "C", "count": 1},
    ]


def test_two_systems_are_compared_on_the_same_draws() -> None:
    one, other = (score_texts(list("abcd"), texts, REFERENCES) for texts in (HYPOTHESES, REFERENCES))
    found = compare(one, other)
    expected = paired_difference([1, 2, 1, 0], [0, 0, 0, 0], [3, 2, 0, 1])
    assert found["difference"] == pytest.approx(100 * 4 / 6, abs=1e-4)
    assert found["interval"] == [round(100 * bound, 4) for bound in expected.interval[1:]]
    assert (found["wer"], found["resampled"]) == (0.0, "utterances")


def test_alignments_are_titled() -> None:
    shown = show_alignments(score_texts(["utt-1", "utt-2"], ["THE BAT", "NO"], ["THE CAT", "NO"]))
    assert shown.splitlines() == [
        "utt-1: errors 1 of 2 words, substitutions 1",
        "REF:  THE CAT",
        "HYP:  THE BAT",
        "EVAL:     S",
        "",
        "utt-2: errors 0 of 1 words",
        "REF:  NO",
        "HYP:  NO",
        "EVAL:",
    ]
