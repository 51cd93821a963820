"""Forced alignment against all paths, torchaudio, and the path of greedy decoding."""

import doctest
import itertools

import numpy as np
import pytest
import torch

from fairseq_skd.alignment.spikes import Frames, find_spikes
from fairseq_skd.errors import UserError
from fairseq_skd.search import forced
from fairseq_skd.search.forced import align_units
from fairseq_skd.search.greedy import greedy_units


def random_log_probs(frames: int, symbols: int, seed: int, scale: float = 1.0) -> np.ndarray:
    logits = scale * np.random.default_rng(seed).standard_normal((frames, symbols))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def spelt(path: tuple[int, ...]) -> list[int]:
    return [unit for unit, _ in itertools.groupby(path) if unit]


def test_every_path_of_tiny_cases() -> None:
    """The path, its score, and all numbers of its spikes."""
    for seed, frames in itertools.product(range(4), (1, 3, 5)):
        log_probs = random_log_probs(frames, 3, seed, 2.0)
        best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
        for path in itertools.product(range(3), repeat=frames):
            score = float(sum(log_probs[t, unit] for t, unit in enumerate(path)))
            key = tuple(spelt(path))
            best[key] = max(best.get(key, (-np.inf, ())), (score, path))
        for units, (score, path) in best.items():
            found = align_units(log_probs, units)
            assert found.score == pytest.approx(score, abs=1e-12)
            runs = [(unit, len(list(run))) for unit, run in itertools.groupby(path)]
            ends = list(itertools.accumulate(size for _, size in runs))
            spikes = [(end - size, end) for (unit, size), end in zip(runs, ends, strict=True) if unit]
            assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == spikes
            for place, (start, end) in enumerate(spikes):
                posteriors = np.exp(log_probs[start:end, units[place]])
                assert found.peaks[place] == start + posteriors.argmax()
                assert found.heights[place] == pytest.approx(posteriors.max())
                assert found.means[place] == pytest.approx(posteriors.mean())


@pytest.mark.parametrize(("frames", "units"), [(40, 12), (200, 30), (64, 32)])
def test_equals_torchaudio(frames: int, units: int) -> None:
    try:
        align = pytest.importorskip("torchaudio").functional.forced_align
    except OSError as error:  # a build for CUDA loads its library late
        pytest.skip(f"torchaudio cannot run here: {error}")
    for seed in range(3):
        log_probs = random_log_probs(frames, 8, seed)
        text = np.random.default_rng(seed).integers(1, 8, units)
        if frames == 64:  # alternates, so that it needs one frame per unit
            text = np.arange(units) % 7 + 1
        given = torch.tensor(log_probs)[None], torch.tensor(text, dtype=torch.int32)[None]
        path, scores = align(*given)
        found = align_units(log_probs, text.tolist())
        ours = np.zeros(frames, int)
        for unit, start, end in zip(text, found.starts, found.ends, strict=True):
            ours[start:end] = unit
        assert ours.tolist() == path[0].tolist()
        assert found.score == pytest.approx(float(scores.sum()), abs=1e-9)


def test_a_greedy_text_lies_on_the_best_symbols() -> None:
    """The spikes are those of the alignment measures, found from the argmax of each frame."""
    for seed in range(5):
        log_probs = random_log_probs(120, 6, seed, 3.0)
        log_probs[:, 0] += 1.0
        best = log_probs.argmax(axis=1)
        (units,) = greedy_units(torch.tensor(log_probs)[:, None], torch.tensor([120]))
        found = align_units(log_probs, units)
        expected = find_spikes(Frames(best, log_probs.max(axis=1), np.zeros(120)))
        assert expected.symbols.tolist() == units
        for ours, theirs in zip(found[:3], expected[1:], strict=True):
            assert ours.tolist() == theirs.tolist()
        assert found.score == pytest.approx(log_probs.max(axis=1).sum())


def test_a_boundary_may_repeat_in_a_pause() -> None:
    """The best symbols are | A | - | B |; without boundary, two frames cost a path of 0.01 each."""
    log_probs = np.log(np.full((7, 4), 0.01) + 0.96 * np.eye(4)[[3, 1, 3, 0, 3, 2, 3]])  # - A B |
    found = align_units(log_probs, [1, 3, 2, 3], boundary=3)
    assert found.starts.tolist() == [1, 2, 5, 6] or found.starts.tolist() == [1, 4, 5, 6]
    assert found.score == pytest.approx(7 * np.log(0.97))
    assert align_units(log_probs, [1, 3, 2, 3]).score == pytest.approx(5 * np.log(0.97) + 2 * np.log(0.01))
    # Inside a word, blanks stay blanks: the two | between A and B cost.
    assert align_units(log_probs[1:], [1, 2], boundary=3).score == pytest.approx(4 * np.log(0.97) + 2 * np.log(0.01))


def test_a_boundary_changes_as_if_the_text_had_more_of_it() -> None:
    """Against the best of all texts with repeated boundaries."""
    for seed in range(20):
        log_probs = random_log_probs(8, 4, seed, 2.0)
        texts = [
            [3] * first + [1] + [3] * between + [2] + [3] * last
            for first, between, last in itertools.product(range(4), range(1, 4), range(4))
        ]
        best = max(align_units(log_probs, text).score for text in texts if len(text) <= 5)
        found = align_units(log_probs, [1, 3, 2], boundary=3)
        assert found.score >= best - 1e-9
        assert found.heights == pytest.approx(np.exp(log_probs[found.peaks, [1, 3, 2]]))


def test_impossible_symbols_do_not_lose_the_path() -> None:
    log_probs = np.array([[0.0, -np.inf], [-0.7, -0.7], [0.0, -np.inf]])
    assert align_units(log_probs, [1]).starts.tolist() == [1]
    assert align_units(log_probs[[0, 2]], [1]).heights.tolist() == [0.0]


def test_no_units_and_no_frames() -> None:
    log_probs = random_log_probs(7, 3, 0)
    found = align_units(log_probs, [])
    assert found.score == pytest.approx(log_probs[:, 0].sum()) and len(found.starts) == len(found.heights) == 0
    assert align_units(log_probs[:0], []).score == 0.0


def test_more_units_than_frames() -> None:
    log_probs = random_log_probs(4, 3, 0)
    assert align_units(log_probs, [1, 2, 1, 2]).starts.tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="^the text has 4 units and needs 5 frames, the audio has 4: give the text of"):
        align_units(log_probs, [1, 1, 2, 1])


def test_the_example() -> None:
    assert doctest.testmod(forced).failed == 0
