"""The beam search against all paths, scored one by one in float64."""

import functools
import itertools
import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_skd.errors import UserError
from fairseq_skd.search.beam import BeamOptions, BeamSearch
from fairseq_skd.search.greedy import greedy_units
from fairseq_skd.search.lexicon import read_lexicon
from tests.search.language_models import UNIT_ARPA, log10_probability, write_arpa

pytest.importorskip("flashlight.lib.text", reason="flashlight-text is not installed")

LETTERS = ["<s>", "|", "A", "N", "O"]
PIECES = ["<s>", "\u2581A", "\u2581N", "\u2581O", "N", "O"]
SPELT = {"A": ["A", "|"], "NO": ["N", "O", "|"], "ON": ["O", "N", "|"]}
PIECED = {"A": ["\u2581A"], "NO": ["\u2581N", "O"], "ON": ["\u2581O", "N"]}
WIDE = {"beam": 10000, "beamthreshold": 1e4}


def search(folder: Path, symbols: list[str], spellings: dict[str, list[str]] | None, **options: float) -> BeamSearch:
    lexicon = None
    if spellings is not None:
        path = folder / "lexicon.txt"
        path.write_text("".join(f"{word}\t{' '.join(units)}\n" for word, units in spellings.items()), encoding="utf-8")
        lexicon = read_lexicon(path, symbols, specials=1)
    lmpath = write_arpa(folder) if spellings is not None else write_arpa(folder, UNIT_ARPA)
    return BeamSearch(symbols, 0, BeamOptions(**{**WIDE, **options}), lmpath, lexicon)


def posteriors(frames: int, symbols: Sequence[str], seed: int, scale: float = 3.0) -> torch.Tensor:
    values = scale * np.random.default_rng(seed).standard_normal((frames, len(symbols)))
    return torch.from_numpy(values).log_softmax(dim=1)


@functools.cache
def paths(frames: int, symbols: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """List all paths, the index of each path's text, and all texts."""
    every = list(itertools.product(range(symbols), repeat=frames))
    said = [tuple(unit for unit, _ in itertools.groupby(path) if unit != 0) for path in every]
    texts = sorted(set(said))
    place = {text: index for index, text in enumerate(texts)}
    return np.array(every), np.array([place[text] for text in said]), texts


def likelihoods(log_probs: torch.Tensor, add: bool) -> dict[tuple[int, ...], float]:
    """Log probability of each text's best alignment, or of the sum over its alignments."""
    table = log_probs.double().numpy()
    every, said, texts = paths(*table.shape)
    scores = np.full(len(texts), -np.inf)
    combine = np.logaddexp if add else np.maximum
    combine.at(scores, said, table[np.arange(len(table)), every].sum(axis=1))
    return dict(zip(texts, scores.tolist(), strict=True))


def readings(units: tuple[int, ...], spelt: dict[str, tuple[int, ...]], silence: int | None) -> Iterator[list[str]]:
    """Find the word sequences that units spell, with silence allowed between words."""
    while units and units[0] == silence:
        units = units[1:]
    if not units:
        yield []
    for word, spelling in spelt.items():
        if units[: len(spelling)] == spelling:
            yield from ([word, *rest] for rest in readings(units[len(spelling) :], spelt, silence))


def best_words(
    log_probs: torch.Tensor, symbols: list[str], spellings: dict[str, list[str]], lmweight: float, wordscore: float
) -> tuple[float, list[str], tuple[int, ...]]:
    spelt = {word: tuple(symbols.index(unit) for unit in units) for word, units in spellings.items()}
    silence = symbols.index("|") if "|" in symbols else None
    scored = [
        (likelihood + lmweight * log10_probability(words) + wordscore * len(words), words, units)
        for units, likelihood in likelihoods(log_probs, add=False).items()
        for words in readings(units, spelt, silence)
    ]
    return max(scored, key=lambda entry: entry[0])


@pytest.mark.parametrize(("lmweight", "wordscore"), [(2.0, -1.0), (0.0, 0.0), (5.0, 2.0)])
def test_letters_with_a_lexicon(tmp_path: Path, lmweight: float, wordscore: float) -> None:
    searcher = search(tmp_path, LETTERS, SPELT, lmweight=lmweight, wordscore=wordscore)
    found_words = set()
    for seed in range(12):
        log_probs = posteriors(6, LETTERS, seed)
        _, words, units = best_words(log_probs, LETTERS, SPELT, lmweight, wordscore)
        assert searcher.search(log_probs) == (list(units), words), seed
        found_words.add(tuple(words))
    assert len(found_words) > 3


def test_word_pieces_with_a_lexicon(tmp_path: Path) -> None:
    """Two of 20 may differ: where a unit should last, but blank is likelier in its frame."""
    searcher = search(tmp_path, PIECES, PIECED)
    equal = 0
    for seed in range(20):
        log_probs = posteriors(6, PIECES, seed)
        _, words, units = best_words(log_probs, PIECES, PIECED, 2.0, -1.0)
        found = searcher.search(log_probs)
        assert found.units == [PIECES.index(unit) for word in found.words or [] for unit in PIECED[word]]
        equal += found == (list(units), words)
    assert equal >= 18


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([1, 1, 2, 5, 5, 5], ["A", "NO"]),  # the last piece of a word lasts, with or without a blank after it
        ([1, 1, 1, 0, 3, 4, 4], ["A", "ON"]),
        ([2, 5, 5, 3, 3, 4], ["NO", "ON"]),
        ([1, 0, 1, 1, 0], ["A", "A"]),
        ([1, 1, 1, 1], ["A"]),
    ],
)
def test_word_pieces_that_last(tmp_path: Path, said: list[int], words: list[str]) -> None:
    """Confident posteriors: the language model cannot outweigh any other word."""
    log_probs = (8.0 * torch.nn.functional.one_hot(torch.tensor(said), len(PIECES))).log_softmax(dim=1)
    found = search(tmp_path, PIECES, PIECED, lmweight=0.5, wordscore=0.0).search(log_probs)
    assert found.words == words


@pytest.mark.parametrize("add", [False, True])
def test_units_with_a_model(tmp_path: Path, add: bool) -> None:
    symbols = ["<s>", "A", "N", "O"]
    searcher = search(tmp_path, symbols, None, logadd=add, lmweight=1.5)
    for seed in range(12):
        log_probs = posteriors(6, symbols, seed, scale=1.5)
        scored = {
            units: likelihood + 1.5 * log10_probability([symbols[unit] for unit in units], UNIT_ARPA)
            for units, likelihood in likelihoods(log_probs, add).items()
        }
        assert searcher.search(log_probs) == (list(max(scored, key=scored.__getitem__)), None), seed


def test_units_without_a_model() -> None:
    """The best path is the greedy one; the sum over alignments may prefer another text."""
    best = BeamSearch(LETTERS, 0, BeamOptions(**WIDE), None, None)
    summed = BeamSearch(LETTERS, 0, BeamOptions(**WIDE, logadd=True), None, None)
    differ = 0
    for seed in range(12):
        log_probs = posteriors(6, LETTERS, seed, scale=1.0)
        greedy = greedy_units(log_probs.unsqueeze(1), torch.tensor([6]))[0]
        assert best.search(log_probs).units == greedy
        likeliest = likelihoods(log_probs, add=True)
        expected = list(max(likeliest, key=likeliest.__getitem__))
        assert summed.search(log_probs).units == expected
        differ += expected != greedy
    assert differ > 2


def test_summed_alignments_with_a_lexicon(tmp_path: Path) -> None:
    """The sum is over all alignments and all ways to put silence between words."""
    searcher = search(tmp_path, LETTERS, SPELT, logadd=True)
    spelt = {word: tuple(LETTERS.index(unit) for unit in units) for word, units in SPELT.items()}
    differ = 0
    for seed in range(12):
        log_probs = posteriors(6, LETTERS, seed, scale=1.5)
        scores: dict[tuple[str, ...], float] = {}
        for units, likelihood in likelihoods(log_probs, add=True).items():
            for words in readings(units, spelt, LETTERS.index("|")):
                scores[tuple(words)] = np.logaddexp(scores.get(tuple(words), -np.inf), likelihood)
        totals = {words: score + 2 * log10_probability(words) - len(words) for words, score in scores.items()}
        expected = list(max(totals, key=totals.__getitem__))
        assert searcher.search(log_probs).words == expected, seed
        differ += expected != best_words(log_probs, LETTERS, SPELT, 2.0, -1.0)[1]
    assert differ
    with pytest.raises(UserError, match=r"logadd=true with a lexicon needs a dictionary with \|"):
        search(tmp_path, PIECES, PIECED, logadd=True)


def test_the_language_model_corrects_greedy_errors(tmp_path: Path) -> None:
    """The posteriors prefer A ON to A NO by a little; the language model prefers A NO."""
    log_probs = posteriors(8, LETTERS, 0, scale=0.0)
    for frame, (loud, soft) in enumerate([(2, 2), (1, 1), (4, 3), (0, 0), (3, 4), (0, 0), (1, 1), (0, 0)]):
        log_probs[frame, soft] += 4.0
        log_probs[frame, loud] += 4.5 if loud != soft else 4.0
    log_probs = log_probs.log_softmax(dim=1)
    assert [LETTERS[unit] for unit in greedy_units(log_probs.unsqueeze(1), torch.tensor([8]))[0]] == list("A|ON|")
    assert search(tmp_path, LETTERS, SPELT).search(log_probs).words == ["A", "NO"]
    assert search(tmp_path, LETTERS, SPELT, lmweight=0.0, wordscore=0.0).search(log_probs).words == ["A", "ON"]


def test_weights_and_width(tmp_path: Path) -> None:
    """A word score adds words, silweight adds frames of |, a narrow beam misses the best path."""
    log_probs = posteriors(7, LETTERS, 3, scale=0.5)
    few, many = (
        search(tmp_path, LETTERS, SPELT, lmweight=0.0, wordscore=score).search(log_probs) for score in (-9.0, 9.0)
    )
    assert len(few.words or []) == 0
    assert len(many.words or []) == 3
    quiet = search(tmp_path, LETTERS, SPELT, lmweight=0.0, wordscore=0.0, silweight=20.0).search(log_probs)
    assert set(quiet.units) == {1}
    other = posteriors(7, LETTERS, 39, scale=0.5)
    assert search(tmp_path, LETTERS, SPELT).search(other).words == []
    assert search(tmp_path, LETTERS, SPELT, beam=1, beamsizetoken=1).search(other).words == ["A"]


def test_batches_and_padding(tmp_path: Path) -> None:
    """Frames after the length are ignored, in any precision of the logits."""
    searcher = search(tmp_path, LETTERS, SPELT)
    logits = torch.stack([3 * posteriors(7, LETTERS, seed) for seed in (0, 1, 2)], dim=1)
    lengths = torch.tensor([7, 4, 0])
    found = searcher(logits, lengths)
    alone = [searcher.search(logits[:length, i].float().log_softmax(-1)) for i, length in enumerate(lengths.tolist())]
    assert found == alone
    assert found[2] == ([], [])
    logits[4:, 1] = torch.nan
    assert searcher(logits, lengths) == found
    assert searcher(logits.bfloat16(), lengths)[1].words is not None


def test_an_utterance_too_short_for_any_word(tmp_path: Path) -> None:
    found = search(tmp_path, LETTERS, SPELT, wordscore=50.0).search(posteriors(1, LETTERS, 0))
    assert found.words == []


def test_unknown_words_need_a_weight(tmp_path: Path) -> None:
    log_probs = posteriors(5, LETTERS, 0)
    assert "<unk>" not in (search(tmp_path, LETTERS, SPELT, wordscore=0.0).search(log_probs).words or [])
    assert "<unk>" in (search(tmp_path, LETTERS, SPELT, unkweight=20.0).search(log_probs).words or [])


def test_a_search_pickles_and_has_no_parameters(tmp_path: Path) -> None:
    searcher = search(tmp_path, LETTERS, SPELT)
    again = pickle.loads(pickle.dumps(searcher))  # noqa: S301
    log_probs = posteriors(6, LETTERS, 5)
    assert again.search(log_probs) == searcher.search(log_probs)
    assert not isinstance(searcher, torch.nn.Module)


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    lower = {word.lower(): units for word, units in SPELT.items()}
    with pytest.raises(
        UserError, match=r"lm\.arpa knows no word of lexicon .*lexicon\.txt: use the same words and case in both"
    ):
        search(tmp_path, LETTERS, lower)
    with pytest.raises(UserError, match=r"knows 1 of the 4 units of the dictionary: without a lexicon"):
        BeamSearch(LETTERS, 0, BeamOptions(), write_arpa(tmp_path), None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beam": 0}, "decoding.beam=0 is out of range: set it to at least 1"),
        ({"beamsizetoken": 0}, "decoding.beamsizetoken=0 is out of range"),
        ({"beamthreshold": 0.0}, "decoding.beamthreshold=0.0 is out of range: set it to a positive number"),
        ({"beamthreshold": math.nan}, "decoding.beamthreshold=nan is out of range"),
        ({"lmweight": math.nan}, "decoding.lmweight=nan is not finite"),
        ({"wordscore": math.inf}, "decoding.wordscore=inf is not finite"),
        ({"unkweight": math.inf}, "decoding.unkweight=inf cannot be used"),
    ],
)
def test_options_out_of_range(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        BeamOptions(**options).check("decoding.")  # type: ignore[arg-type]
