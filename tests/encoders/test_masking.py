"""Span masks: what they cover, and that they depend only on the given generator."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import data_utils

from fairseq_skd.encoders.masking import SELECTIONS, SpanMask
from fairseq_skd.errors import UserError

OTHER = {"static": 0.0, "uniform": 2.0, "normal": 3.0, "poisson": 0.0}


def draw(mask: SpanMask, sizes: Sequence[int], seed: int = 0, width: int | None = None) -> np.ndarray:
    return mask.draw(sizes, max(sizes) if width is None else width, np.random.default_rng(seed))


def runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, end) of each run of masked positions."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


@pytest.mark.parametrize("no_overlap", [False, True])
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.slow
def test_every_selection_masks_and_leaves_something(selection: str, no_overlap: bool) -> None:
    mask = SpanMask(0.65, 10, selection, OTHER[selection], no_overlap, min_spans=2, same_count=False)
    for seed in range(40):
        sizes = [200, 37, 499]
        drawn = draw(mask, sizes, seed, width=512)
        assert drawn.shape == (3, 512)
        assert drawn.dtype == np.bool_
        for row, size in zip(drawn, sizes, strict=True):
            assert not row[size:].any()
            assert 0 < row[:size].sum() < size


@pytest.mark.parametrize("prob", [0.05, 0.65, 1.0])
@pytest.mark.parametrize("no_overlap", [False, True])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_short_utterances_keep_a_frame(selection: str, no_overlap: bool, prob: float) -> None:
    mask = SpanMask(prob, 10, selection, OTHER[selection], no_overlap, min_spans=2, same_count=False)
    for size in (1, 2, 3, 5, 9, 10, 11, 12, 13):
        for seed in range(12):
            assert draw(mask, [size], seed).sum() < size


def test_a_single_position_is_never_masked() -> None:
    assert not draw(SpanMask(1.0, 10, min_spans=2), [1, 1, 1]).any()
    assert not draw(SpanMask(1.0, 10, min_spans=2, same_count=False), [0], width=4).any()


@pytest.mark.parametrize("width", [16, 64, 96, 128, 192, 768])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_narrow_encoders_keep_a_channel(selection: str, width: int) -> None:
    mask = SpanMask(0.5, 64, selection, OTHER[selection], same_count=False)
    for seed in range(25):
        drawn = draw(mask, [width] * 4, seed)
        assert (drawn.sum(axis=1) < width).all()


@pytest.mark.parametrize("min_space", [0, 1, 2, 7])
def test_spans_without_overlap_are_apart(min_space: int) -> None:
    mask = SpanMask(0.65, 10, no_overlap=True, min_space=min_space, same_count=False)
    for seed in range(60):
        (row,) = draw(mask, [300], seed)
        spans = runs(row)
        if min_space > 0:
            assert {end - start for start, end in spans} == {10}
            assert all(after[0] - before[1] >= min_space for before, after in itertools.pairwise(spans))
        else:  # spans may touch, but not overlap
            assert row.sum() % 10 == 0


@pytest.mark.parametrize("selection", ["uniform", "normal", "poisson"])
def test_spans_of_random_length_are_apart(selection: str) -> None:
    mask = SpanMask(0.5, 8, selection, OTHER[selection], no_overlap=True, min_space=3, same_count=False)
    lengths = set()
    for seed in range(60):
        (row,) = draw(mask, [250], seed)
        spans = runs(row)
        lengths |= {end - start for start, end in spans}
        assert all(after[0] - before[1] >= 3 for before, after in itertools.pairwise(spans))
    assert len(lengths) > 5
    if selection == "uniform":
        assert min(lengths) >= 2
        assert max(lengths) <= 16


def test_spans_without_overlap_cover_exactly_their_length() -> None:
    # 0.3 * 100 / 10 = 3 spans; random rounding adds less than 1; there is room for all.
    mask = SpanMask(0.3, 10, no_overlap=True, same_count=False)
    assert {int(draw(mask, [100], seed).sum()) for seed in range(50)} == {30}


def test_spans_without_room_are_left_out() -> None:
    mask = SpanMask(0.9, 10, no_overlap=True, min_space=5, min_spans=40)
    for seed in range(20):
        (row,) = draw(mask, [50], seed)
        assert row.sum() in (20, 30)
    assert not draw(mask, [9]).any()


def test_min_spans() -> None:
    mask = SpanMask(0.0, 3, no_overlap=True, min_spans=4)
    assert {int(draw(mask, [100], seed).sum()) for seed in range(20)} == {12}
    assert not draw(SpanMask(0.0, 3), [100]).any()


def test_rounding_is_random_and_fair() -> None:
    # 0.5 * 64 / 64: half a span per utterance.
    mask = SpanMask(0.5, 64, same_count=False)
    drawn = draw(mask, [64] * 2000)
    assert drawn.any(axis=1).mean() == pytest.approx(0.5, abs=0.04)


def test_rows_mask_equally_many_positions_when_asked() -> None:
    mask = SpanMask(0.65, 10, min_spans=2, same_count=True)
    sizes = [499, 60, 200, 33]
    for seed in range(20):
        drawn = draw(mask, sizes, seed)
        assert len(set(drawn.sum(axis=1))) == 1
        assert drawn.sum(axis=1)[0] > 0
        assert all(not row[size:].any() for row, size in zip(drawn, sizes, strict=True))
    apart = draw(SpanMask(0.65, 10, min_spans=2, same_count=False), sizes)
    assert len(set(apart.sum(axis=1))) > 1


@pytest.mark.parametrize(("dropout", "left"), [(0.0, 30), (0.1, 27), (0.5, 15), (1.0, 0)])
def test_dropout_unmasks_its_share(dropout: float, left: int) -> None:
    mask = SpanMask(0.3, 10, no_overlap=True, dropout=dropout)
    assert {int(count) for seed in range(10) for count in draw(mask, [100, 100], seed).sum(axis=1)} == {left}
    assert not draw(SpanMask(0.0, 10, dropout=0.5), [20]).any()


def test_masks_are_a_function_of_the_generator() -> None:
    for selection in SELECTIONS:
        mask = SpanMask(0.65, 10, selection, OTHER[selection], min_spans=2, dropout=0.1)
        assert np.array_equal(draw(mask, [100, 80], 5), draw(mask, [100, 80], 5))
        assert not np.array_equal(draw(mask, [100, 80], 5), draw(mask, [100, 80], 6))


def test_the_global_generators_are_not_used() -> None:
    mask = SpanMask(0.65, 10, "poisson", no_overlap=True, dropout=0.2)
    np.random.seed(123)  # noqa: NPY002
    random.seed(123)
    expected_next = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(123)  # noqa: NPY002
    random.seed(123)
    first = draw(mask, [100] * 3)
    assert (np.random.random(), random.random()) == expected_next  # noqa: NPY002
    assert np.array_equal(draw(mask, [100] * 3), first)


def fairseqs(patching: pytest.MonkeyPatch, prob: float, length: int, shape: tuple[int, int], seed: int = 0, **options):
    """Draw fairseq's masks from a seed: builds use numpy's global state or a random seed."""
    np.random.seed(seed)  # noqa: NPY002
    shared = np.random.default_rng(seed)
    # Without a padding mask, old builds draw one number of spans for the whole batch.
    all_real = torch.zeros(shape, dtype=torch.bool)
    with patching.context() as patched:
        patched.setattr(np.random, "default_rng", lambda *_: shared)
        return data_utils.compute_mask_indices(shape, all_real, prob, length, **options)


@pytest.mark.parametrize(
    ("prob", "length", "size", "min_spans"),
    [(0.65, 10, 500, 2), (0.65, 10, 50, 2), (0.5, 10, 100, 2), (0.65, 10, 16, 2), (0.5, 64, 768, 0), (0.2, 1, 40, 0)],
)
@pytest.mark.slow
def test_static_masks_cover_as_much_as_fairseqs(
    monkeypatch: pytest.MonkeyPatch, prob: float, length: int, size: int, min_spans: int
) -> None:
    ours = draw(SpanMask(prob, length, min_spans=min_spans, same_count=False), [size] * 1000)
    theirs = fairseqs(monkeypatch, prob, length, (1000, size), min_masks=min_spans, require_same_masks=False)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.015)
    # Also in the same places: the end of an utterance is masked less often, its last frame never.
    bins = np.array_split(np.arange(size), 5)
    for positions in bins:
        assert ours[:, positions].mean() == pytest.approx(theirs[:, positions].mean(), abs=0.05)


@pytest.mark.parametrize(("selection", "other"), [("normal", 2.0), ("poisson", 0.0)])
def test_masks_of_random_lengths_cover_as_much_as_fairseqs(
    monkeypatch: pytest.MonkeyPatch, selection: str, other: float
) -> None:
    ours = draw(SpanMask(0.5, 10, selection, other, same_count=False), [200] * 1000)
    options: dict[str, Any] = {"mask_type": selection, "mask_other": other, "require_same_masks": False}
    theirs = fairseqs(monkeypatch, 0.5, 10, (1000, 200), **options)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.02)


def test_masks_of_same_count_cover_as_much_as_fairseqs(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = SpanMask(0.65, 10, min_spans=2)
    ours = np.mean([draw(mask, [100] * 8, seed).mean() for seed in range(150)])
    theirs = np.mean([fairseqs(monkeypatch, 0.65, 10, (8, 100), seed, min_masks=2).mean() for seed in range(150)])
    assert ours == pytest.approx(theirs, abs=0.015)


def test_no_rows() -> None:
    assert SpanMask(0.5, 10).draw([], 20, np.random.default_rng(0)).shape == (0, 20)


def test_refuses_an_unknown_selection() -> None:
    with pytest.raises(UserError) as refused:
        SpanMask(0.5, 10, "gamma")
    assert str(refused.value) == "mask selection 'gamma' is unknown: choose one of static, uniform, normal, poisson"


@pytest.mark.parametrize("length", [0, -3])
def test_refuses_a_length_that_is_not_positive(length: int) -> None:
    with pytest.raises(UserError, match=rf"^mask length={length} must be at least 1$"):
        SpanMask(0.5, length)


@pytest.mark.parametrize(("selection", "other"), [("uniform", 21.0), ("uniform", -1.0), ("normal", -0.5)])
def test_refuses_a_second_parameter_out_of_range(selection: str, other: float) -> None:
    with pytest.raises(UserError) as refused:
        SpanMask(0.5, 10, selection, other)
    assert str(refused.value) == (
        f"mask other={other} is out of range for selection {selection} and length 10: "
        f"it must be at least 0, and for uniform at most twice the length"
    )
