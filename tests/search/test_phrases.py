"""Phrase boosting against all texts, scored one by one in float64; and what a file may hold."""

import itertools
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fairseq_skd.errors import UserError
from fairseq_skd.search.automaton import Automaton
from fairseq_skd.search.beam import BeamOptions, BeamSearch
from fairseq_skd.search.greedy import greedy_units
from fairseq_skd.search.lexicon import Lexicon, read_lexicon
from fairseq_skd.search.phrases import Phrases, check_scale, read_phrases
from tests.search.language_models import UNIT_ARPA, log10_probability, write_arpa
from tests.search.test_beam import LETTERS, PIECES, SPELT, WIDE, likelihoods, posteriors, readings, search

# A prefix of another, one inside another, repeated letters, words that overlap, one to avoid.
WEIGHTS = {"A": 1.0, "NO": 0.7, "A NO": 1.5, "AN": -2.0, "AN ON": 1.2, "NO ON": 0.4, "NN": 2.0, "A A": 0.3, "ANO": 1.0}
UNITS = [*LETTERS[:1], "<pad>", "</s>", "<unk>", *LETTERS[1:]]  # as fairseq's dictionaries begin


def bonus(words: Sequence[str], scale: float, weights: dict[str, float] = WEIGHTS) -> float:
    """Count each phrase at each place of a text."""
    total = 0.0
    for phrase, weight in weights.items():
        wanted = phrase.split()
        places = range(len(words) - len(wanted) + 1)
        times = sum(list(words[place : place + len(wanted)]) == wanted for place in places)
        total += scale * weight * times * sum(map(len, wanted))
    return total


def phrases_of(scale: float, process: str = "letter", **weights: float) -> Phrases:
    return Phrases(Path("phrases.txt"), weights or WEIGHTS, scale, process)


def write(folder: Path, text: str) -> Path:
    path = folder / "phrases.txt"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, process: str = "letter", lexicon: Lexicon | None = None) -> Phrases:
    symbols = UNITS if process == "letter" else [*UNITS[:4], *PIECES[1:]]
    return read_phrases(write(folder, text), 1.0, symbols, 4, process, lexicon)


def boosted(scale: float, **weights: float) -> BeamSearch:
    return BeamSearch(LETTERS, 0, BeamOptions(), None, None, phrases_of(scale, **weights))


# ---- scores


@pytest.mark.parametrize(
    ("process", "symbols", "mark"), [("letter", LETTERS, "|"), ("sentencepiece", PIECES, "\u2581")]
)
@pytest.mark.slow
def test_units(process: str, symbols: list[str], mark: str) -> None:
    """Word pieces may cut a word in any way; a phrase at the end needs no mark after it."""
    scale = 0.8
    searcher = BeamSearch(symbols, 0, BeamOptions(**WIDE), None, None, phrases_of(scale, process))
    plain = BeamSearch(symbols, 0, BeamOptions(**WIDE), None, None)
    changed = 0
    for seed in range(8):
        log_probs = posteriors(5, symbols, seed, scale=1.5)
        scores = {
            units: likelihood + bonus("".join(symbols[unit] for unit in units).replace(mark, " ").split(), scale)
            for units, likelihood in likelihoods(log_probs, add=False).items()
        }
        best = max(scores, key=scores.__getitem__)
        found = next(searcher.ranked(log_probs))
        assert found.hypothesis.units == list(best), seed
        assert found.score == pytest.approx(scores[best], abs=1e-4)
        changed += found.hypothesis != plain.search(log_probs)
    assert changed > 3


@pytest.mark.parametrize("add", [False, True])
def test_units_with_a_model_and_without_boundaries(tmp_path: Path, add: bool) -> None:
    """Phones and the like: phrases match anywhere, and each unit counts as one character."""
    symbols = ["<s>", "A", "N", "O"]
    weights = {"A N": 0.9, "N": 0.4, "N O N": 1.0, "O A": -1.5}
    phrases = phrases_of(1.0, "none", **weights)
    options = BeamOptions(**WIDE, lmweight=1.5, logadd=add)
    searcher = BeamSearch(symbols, 0, options, write_arpa(tmp_path, UNIT_ARPA), None, phrases)
    for seed in range(8):
        log_probs = posteriors(6, symbols, seed, scale=1.5)
        scores = {}
        for units, likelihood in likelihoods(log_probs, add).items():
            text = [symbols[unit] for unit in units]
            scores[units] = likelihood + 1.5 * log10_probability(text, UNIT_ARPA) + bonus(text, 1.0, weights)
        assert searcher.search(log_probs).units == list(max(scores, key=scores.__getitem__)), seed


@pytest.mark.parametrize("lmweight", [0.0, 1.5])
def test_words_of_a_lexicon(tmp_path: Path, lmweight: float) -> None:
    """A phrase adds its word OO to the lexicon; the language model scores it as unknown."""
    search(tmp_path, LETTERS, SPELT)
    weights = {"A": 1.0, "NO": 0.7, "A NO": 1.5, "ON": -2.0, "NO ON": 0.4, "A A": 0.3, "OO": 3.0}
    lines = "".join(f"{phrase}\t{weight}\n" for phrase, weight in weights.items())
    lexicon = read_lexicon(tmp_path / "lexicon.txt", LETTERS, 1)
    phrases = read_phrases(write(tmp_path, lines), 1.0, LETTERS, 1, "letter", lexicon)
    assert phrases.added == {"OO": (4, 4, 1)} and phrases.weights == weights
    whole = phrases.with_words(lexicon)
    spelt = {word: spellings[0] for word, spellings in whole.words.items()}
    assert set(spelt) == {*SPELT, "OO"} and set(lexicon.words) == set(SPELT)
    options = BeamOptions(**WIDE, lmweight=lmweight, wordscore=-0.5)
    searcher = BeamSearch(LETTERS, 0, options, tmp_path / "lm.arpa", whole, phrases)
    found_words = set()
    for seed in range(12):
        log_probs = posteriors(6, LETTERS, seed, scale=1.5)
        scored = [
            (
                likelihood + lmweight * log10_probability(words) - 0.5 * len(words) + bonus(words, 1.0, weights),
                words,
            )
            for units, likelihood in likelihoods(log_probs, add=False).items()
            for words in readings(units, spelt, LETTERS.index("|"))
        ]
        score, words = max(scored, key=lambda entry: entry[0])
        found = next(searcher.ranked(log_probs))
        assert found.hypothesis.words == words, seed
        assert found.score == pytest.approx(score, abs=1e-4)
        found_words.update(words)
    assert "OO" in found_words


def test_each_hypothesis_has_its_own_score() -> None:
    """Also those that are not the best one."""
    log_probs = posteriors(5, LETTERS, 1, scale=1.0)
    expected = likelihoods(log_probs, add=False)
    for hypothesis, score in itertools.islice(boosted(1.5).ranked(log_probs), 200):
        words = "".join(LETTERS[unit] for unit in hypothesis.units).replace("|", " ").split()
        assert score == pytest.approx(expected[tuple(hypothesis.units)] + bonus(words, 1.5), abs=1e-4)


def test_the_automaton_lends_and_takes_back() -> None:
    """Worked by hand: NO ON at 1 per character, and NO at 2."""
    bonuses = {("|", "N", "O", "|", "O", "N", "|"): 1.0, ("|", "N", "O", "|"): 2.0}
    automaton = Automaton(bonuses, [(letter,) for letter in "|NOA"], "|")
    state, given = automaton.start, []
    for letter in "NO||OA|NO":
        state, one = automaton.step(state, "|NOA".index(letter))
        given.append(one)
    # NO: 4 lent. |: NO wins 4, and 2 are lent for NO ON. O lends 1 more. A takes 3 back.
    assert given == [2.0, 2.0, 2.0, 0.0, 1.0, -3.0, 0.0, 2.0, 2.0]
    assert automaton.end(state) == 0.0  # the second NO ends with the text: what was lent is won
    state, _ = automaton.step(automaton.start, 1)
    assert automaton.end(state) == -2.0


# ---- what it is for, and its price


def spoken(said: str, heard: dict[int, str]) -> torch.Tensor:
    """Posteriors of a text, a blank after each letter; ``heard``: letters that are louder."""
    frames = list(itertools.chain.from_iterable((letter, "<s>") for letter in said))
    logits = torch.zeros(len(frames), len(LETTERS))
    for frame, letter in enumerate(frames):
        logits[frame, LETTERS.index(letter)] += 6.0
    for place, letter in heard.items():
        logits[2 * place, LETTERS.index(letter)] += 7.0
    return logits.log_softmax(dim=1)


def text_of(searcher: BeamSearch, log_probs: torch.Tensor) -> str:
    return "".join(LETTERS[unit] for unit in searcher.search(log_probs).units)


def test_a_name_is_fixed() -> None:
    """NOAN was said. NAAN is a little likelier."""
    log_probs = spoken("ON|NOAN|", {4: "A"})
    assert "".join(LETTERS[u] for u in greedy_units(log_probs.unsqueeze(1), torch.tensor([16]))[0]) == "ON|NAAN|"
    assert text_of(boosted(0.2, NOAN=1.0), log_probs) == "ON|NAAN|"  # 0.8 is less than the difference of 1
    assert text_of(boosted(0.3, NOAN=1.0), log_probs) == "ON|NOAN|"
    assert text_of(boosted(1.0, NOA=1.0, OAN=1.0), log_probs) == "ON|NAAN|"  # a phrase is whole words


def test_the_price_on_other_text() -> None:
    """NAAN was said. The same phrase makes it wrong, unless the audio is clear."""
    unclear, clear = spoken("ON|NAAN|", {4: "O"}), spoken("ON|NAAN|", {})
    unclear[8, LETTERS.index("A")] += 2.0
    unclear = unclear.log_softmax(dim=1)
    plain, high = boosted(0.0, NOAN=1.0), boosted(1.0, NOAN=1.0)
    assert text_of(plain, unclear) == text_of(plain, clear) == text_of(high, clear) == "ON|NAAN|"
    assert text_of(high, unclear) == "ON|NOAN|"


def test_a_word_to_avoid() -> None:
    assert text_of(boosted(1.0, NAAN=-1.0), spoken("ON|NAAN|", {4: "O"})) == "ON|NOAN|"


def test_ten_thousand_phrases(tmp_path: Path) -> None:
    """Reading and building stay fast, and the result does not depend on phrases that do not fit."""
    many = ["".join(letters) for letters in itertools.product("ANO", repeat=9)][:10000]
    started = time.perf_counter()
    phrases = read(tmp_path, "\n".join([*many, "NOAN"]))
    searcher = BeamSearch(LETTERS, 0, BeamOptions(), None, None, phrases)
    assert time.perf_counter() - started < 10
    assert text_of(searcher, spoken("ON|NOAN|", {4: "A"})) == "ON|NOAN|"


@pytest.mark.parametrize("weight", ["\t0", "\t2"])
def test_a_factor_of_zero_changes_nothing(tmp_path: Path, weight: str) -> None:
    """The zero of a sweep is the search without the file: the same words, and all units."""
    search(tmp_path, LETTERS, SPELT)
    lexicon = read_lexicon(tmp_path / "lexicon.txt", LETTERS, 1)
    phrases = read_phrases(write(tmp_path, f"OO{weight}\n"), 0.0, LETTERS, 1, "letter", lexicon)
    assert phrases.with_words(lexicon) == lexicon
    many = ["<s>", *map(chr, range(0x4E00, 0x4E00 + 40))]
    log_probs = posteriors(4, many, 1, scale=0.1)
    zero = BeamSearch(many, 0, BeamOptions(beam=500), None, None, Phrases(tmp_path, {many[3]: 1.0}, 0.0, "none"))
    plain = BeamSearch(many, 0, BeamOptions(beam=500), None, None)
    assert list(itertools.islice(zero.ranked(log_probs), 400)) == list(itertools.islice(plain.ranked(log_probs), 400))


def test_results_are_forgotten_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = posteriors(6, LETTERS, 3, scale=1.0)
    expected = list(itertools.islice(boosted(1.5).ranked(log_probs), 100))
    monkeypatch.setattr("fairseq_skd.search.automaton._MOST_SCORED", 1)
    assert list(itertools.islice(boosted(1.5).ranked(log_probs), 100)) == expected


def test_pickling() -> None:
    searcher = boosted(1.0)
    again = pickle.loads(pickle.dumps(searcher))  # noqa: S301
    log_probs = posteriors(6, LETTERS, 5)
    assert again.search(log_probs) == searcher.search(log_probs)


# ---- the file


def test_a_file(tmp_path: Path) -> None:
    found = read(tmp_path, "\ufeffNO\n\n  A   NO \t 2.5\r\nON\t-1e-1\nNO\t1\n")
    assert found.weights == {"NO": 1.0, "A NO": 2.5, "ON": -0.1}
    assert found.summary() == {"phrases": str(tmp_path / "phrases.txt"), "phrase_count": 3, "phraseweight": 1.0}
    composed = read_phrases(write(tmp_path, "E\u0301"), 1.0, [*UNITS, "\u00c9"], 4, "letter", None)
    assert composed.weights == {"\u00c9": 1.0}
    assert read(tmp_path, "NO\nANO\nONO NO", "sentencepiece").weights.keys() == {"NO", "ANO", "ONO NO"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"phrases\.txt holds no phrase: write one per line"),
        ("NO\nON\tnan", r"phrases\.txt line 2: the weight 'nan' is not a number from -1000 to 1000: write PHRASE<TAB>"),
        ("NO\tinf", r"line 1: the weight 'inf' is not a number"),
        ("NO\t2\t3", r"line 1: the weight '2 3' is not a number"),
        ("NO\t1001", r"line 1: the weight '1001' is not a number"),
        ("NO\thigh", r"line 1: the weight 'high' is not a number"),
        ("NO\nA\nNO\t2", r"line 3: NO has weight 2, but 1 in line 1: delete one of the lines"),
        ("NO\nNo", r"line 2: 'No' has symbols that no word of this model has \('o'\): write it in upper case"),
        (
            "NO EN",
            r"line 1: 'NO EN' has symbols that no word of this model has \('E'\): write it in the symbols of the",
        ),
        ("A|NO", r"line 1: 'A\|NO' has symbols that no word of this model has \('\|'\)"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_mistakes_of_word_pieces_and_lexicons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1: 'NOA' has a word that no units spell"):  # A stands in front only
        read(tmp_path, "NOA", "sentencepiece")
    search(tmp_path, LETTERS, SPELT)
    lexicon = read_lexicon(tmp_path / "lexicon.txt", LETTERS, 1)
    with pytest.raises(
        UserError, match=r"line 1: 'NOEL' has symbols .* add a line 'NOEL<TAB>unit unit \.\.\.' to the le"
    ):
        read(tmp_path, "NOEL", "letter", lexicon)
    with pytest.raises(
        UserError, match=r"line 1: NOO is not in the lexicon, and the units are not letters: add a line"
    ):
        read(tmp_path, "A NOO", "sentencepiece", lexicon)
    with pytest.raises(UserError, match=r"none\.txt does not exist: check the path"):
        read_phrases(tmp_path / "none.txt", 1.0, UNITS, 4, "letter", None)
    with pytest.raises(UserError, match=r"post_process=subword_nmt: they need one of letter, sentencepiece, wordpiece"):
        read_phrases(write(tmp_path, "NO"), 1.0, UNITS, 4, "subword_nmt", None)
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"--phrase-weight \S+ is out of range: give a number from 0 to 1000"):
            check_scale("--phrase-weight ", scale)
