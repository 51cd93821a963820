import math
from fractions import Fraction
from pathlib import Path

import pytest

from fairseq_skd import ngram
from fairseq_skd.errors import UserError
from fairseq_skd.search.kneser_ney import END, UNKNOWN, estimate, write_arpa


def corpus() -> list[list[str]]:
    """400 sentences whose words have Zipf's frequencies, from a congruential sequence."""
    state, sentences = 1, []
    for number in range(400):
        sentence = []
        for _ in range(1 + number % 7):
            state = (1103515245 * state + 12345) % 2**31
            sentence.append(f"w{int(400 ** (state / 2**31))}")
        sentences.append(sentence)
    return sentences


def test_a_bigram_model_worked_out_by_hand() -> None:
    """A B / A: with so few counts the discounts are 1/2 and 1 for counts of 1 and 2."""
    model = estimate([["A", "B"], ["A"]], order=2)
    assert model.fallbacks == [1, 2]
    half = Fraction(1, 2)
    # Words are counted by what stands before them: A 1 (<s>), B 1 (A), </s> 2 (A, B). The discounts leave 2 of these 4
    # to a uniform distribution over A, B, </s> and <unk>.
    uniform = half / 4
    one = {"A": half / 4 + uniform, "B": half / 4 + uniform, END: Fraction(1, 4) + uniform, UNKNOWN: uniform}
    assert sum(one.values()) == 1
    two = {
        ("<s>", "A"): Fraction(2 - 1, 2) + half * one["A"],
        ("A", "B"): half / 2 + half * one["B"],
        ("A", END): half / 2 + half * one[END],
        ("B", END): half + half * one[END],
    }
    for word, expected in one.items():
        assert model.probability(word, []) == pytest.approx(float(expected), rel=1e-12)
    for (before, word), expected in two.items():
        assert model.probability(word, [before]) == pytest.approx(float(expected), rel=1e-12)
    assert model.probability("A", ["B"]) == pytest.approx(float(half * one["A"]), rel=1e-12)
    assert model.probability("X", ["A"]) == pytest.approx(float(half * one[UNKNOWN]), rel=1e-12)


@pytest.mark.parametrize(
    ("gram", "expected", "backoff"),
    [
        ("<unk>", -3.0357182, None),
        ("w124", -2.8804572, -0.093656875),
        ("w138", -2.6005125, -0.22674409),
        ("w20 w58", -1.8588172, -0.02183422),
        ("<s> w60", -2.6185625, -0.02183422),
        ("w14 w4", -1.3967578, -0.02183422),
        ("w1 w122", -2.5827897, -0.02183422),
        ("<s> w80 w28", -0.8334333, None),
        ("w29 w269 w2", -0.88920724, None),
        ("w8 w2 w106", -1.907107, None),
        ("w3 w44 </s>", -0.80011433, None),
        ("w12 w1 w1", -1.0368848, None),
    ],
)
def test_the_numbers_are_those_of_lmplz(gram: str, expected: float, backoff: float | None) -> None:
    """What KenLM's lmplz -o 3 writes for the same sentences."""
    model = estimate(corpus(), order=3)
    assert not model.fallbacks
    assert [len(grams) for grams in model.probabilities] == [302, 1294, 1525]
    words = tuple(gram.split())
    assert math.log10(model.probabilities[len(words) - 1][words]) == pytest.approx(expected, abs=1e-6)
    if backoff is not None:
        assert math.log10(model.backoffs[len(words) - 1][words]) == pytest.approx(backoff, abs=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one(order: int) -> None:
    sentences = corpus()
    model = estimate(sentences, order)
    words = {word for sentence in sentences for word in sentence} | {END, UNKNOWN}
    for context in ([], ["w1"], ["<s>"], ["<s>", "w2"], ["w1", "w2"], ["w3", "never"], ["w2", "w1", "w1"], ["never"]):
        total = math.fsum(model.probability(word, context) for word in words)
        assert total == pytest.approx(1, abs=1e-9), context


def test_kenlm_reads_the_same_probabilities(tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text")
    from fairseq_skd.search.language_model import load_language_model

    (tmp_path / "train.wrd").write_text("".join(" ".join(sentence) + "\n" for sentence in corpus()))
    ngram.main([str(tmp_path / "train.wrd"), "--out", str(tmp_path / "lm.arpa")])
    model = estimate(corpus(), order=3)
    vocabulary = ["w1", "w2", "w3", "w44", UNKNOWN]
    kenlm = load_language_model(tmp_path / "lm.arpa", vocabulary)
    for sentence in (["w3", "w44"], ["w1", "w1", "w2", UNKNOWN, "w2"], []):
        state, context = kenlm.start(False), ["<s>"]
        for word in sentence:
            state, score = kenlm.score(state, vocabulary.index(word))
            assert score == pytest.approx(math.log10(model.probability(word, context)), abs=1e-6)
            context.append(word)
        assert kenlm.finish(state)[1] == pytest.approx(math.log10(model.probability(END, context)), abs=1e-6)


def test_the_file(tmp_path: Path) -> None:
    """1/4, 3/8, 1/8; 5/8, 3/8 and 7/16 as logarithms; a context leaves a half to backing off."""
    write_arpa(estimate([["A", "B"], ["A"]], order=2), tmp_path / "lm.arpa")
    assert (tmp_path / "lm.arpa").read_text() == (
        "\\data\\\nngram 1=5\nngram 2=4\n\n"
        "\\1-grams:\n-0.4259687\t</s>\n-99.0000000\t<s>\t-0.3010300\n-0.9030900\t<unk>\n"
        "-0.6020600\tA\t-0.3010300\n-0.6020600\tB\t-0.3010300\n\n"
        "\\2-grams:\n-0.2041200\t<s> A\n-0.3590219\tA </s>\n-0.4259687\tA B\n-0.1627273\tB </s>\n\n\\end\\\n"
    )


@pytest.mark.parametrize(
    ("content", "arguments", "sentence"),
    [
        (b"A B\n", ["--order", "1"], "--order 1 is out of range, it is at least 2"),
        (b"\n \n", [], "no word in it, give transcripts"),
        (b"A\nB <unk>\n", [], "line 2 holds <unk>"),
        (b"\xff\n", [], "is not UTF-8"),
        (None, [], "does not exist"),
    ],
)
def test_text_that_cannot_be_used(tmp_path: Path, content: bytes | None, arguments: list[str], sentence: str) -> None:
    text = tmp_path / "train.wrd"
    if content is not None:
        text.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        ngram.main([str(text), "--out", str(tmp_path / "lm.arpa"), *arguments])
    assert not (tmp_path / "lm.arpa").exists()
