"""CTC and its feasibility, against brute force, float64 NumPy and hand-worked numbers."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_skd.objective.losses import ctc_loss, feasible, frame_mask
from tests.objective.references import log_softmax, random_logits


def ctc_by_forward(log_probs: np.ndarray, target: Sequence[int], blank: int = 0) -> float:
    """-log p(target) of one utterance, (T, V) float64, by the forward algorithm."""
    extended = [blank]
    for unit in target:
        extended += [unit, blank]
    forward = np.full(len(extended), -np.inf)
    forward[:2] = log_probs[0, extended[:2]]
    for frame in log_probs[1:]:
        before, forward = forward, np.full(len(extended), -np.inf)
        for s, unit in enumerate(extended):
            reachable = [before[s]] + ([before[s - 1]] if s > 0 else [])
            if s > 1 and unit not in (blank, extended[s - 2]):
                reachable.append(before[s - 2])
            forward[s] = np.logaddexp.reduce(reachable) + frame[unit]
    return -float(np.logaddexp.reduce(forward[-2:]))


def ctc_by_enumeration(log_probs: np.ndarray, target: Sequence[int], blank: int = 0) -> float:
    """-log of the probability, summed over all paths that collapse to the target."""
    frames, symbols = log_probs.shape
    total = -np.inf
    for path in itertools.product(range(symbols), repeat=frames):
        collapsed = [unit for unit, _ in itertools.groupby(path) if unit != blank]
        if collapsed == list(target):
            total = np.logaddexp(total, sum(log_probs[t, unit] for t, unit in enumerate(path)))
    return -float(total)


def random_targets(lengths: Sequence[int], symbols: int, seed: int) -> Tensor:
    """(B, S) targets, padded with an index that is not a symbol."""
    units = torch.randint(1, symbols, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    beyond = torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)
    return units.masked_fill(beyond, 10**6)


# ---- lengths and feasibility


def test_frame_mask_by_hand() -> None:
    assert frame_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [True, False, True],
        [True, False, True],
        [False, False, True],
    ]


@pytest.mark.parametrize(
    ("target", "frames_needed"),
    [
        ([], 0),
        ([3], 1),
        ([3, 4], 2),
        ([3, 3], 3),  # a blank between them
        ([3, 3, 3], 5),
        ([3, 4, 3], 3),
        ([3, 3, 4, 4, 3], 7),
    ],
)
def test_frames_that_a_transcript_needs(target: list[int], frames_needed: int) -> None:
    padded = torch.tensor([target + [1] * (6 - len(target))])  # equal padding symbols do not count
    for frames in range(9):
        fits = feasible(padded, torch.tensor([len(target)]), torch.tensor([frames]))
        assert fits.tolist() == [frames >= frames_needed]


def test_feasible_treats_each_utterance_separately() -> None:
    targets = torch.tensor([[2, 2, 0], [2, 3, 4], [5, 5, 5], [1, 1, 1]])
    assert feasible(targets, torch.tensor([2, 3, 3, 0]), torch.tensor([2, 3, 5, 1])).tolist() == [
        False,
        True,
        True,
        True,
    ]


def test_a_batch_without_any_unit_is_feasible() -> None:
    empty = torch.zeros(2, 0, dtype=torch.long)
    assert feasible(empty, torch.tensor([0, 0]), torch.tensor([4, 1])).tolist() == [True, True]


def test_feasible_means_a_finite_ctc_loss() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        frames, units = int(random.integers(1, 6)), int(random.integers(0, 5))
        target = random.integers(1, 3, size=units)
        loss = ctc_by_enumeration(log_softmax(random.standard_normal((frames, 3))), target.tolist())
        fits = feasible(torch.from_numpy(target)[None], torch.tensor([units]), torch.tensor([frames]))
        assert fits.item() == np.isfinite(loss)


# ---- CTC


@pytest.mark.parametrize("target", [[], [1], [2, 2], [1, 2], [1, 2, 1], [1, 1, 1]])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_ctc_equals_the_sum_over_all_paths(target: list[int], frames: int) -> None:
    log_probs = log_softmax(random_logits((frames, 3), seed=frames).numpy())
    expected = ctc_by_enumeration(log_probs, target)
    assert ctc_by_forward(log_probs, target) == pytest.approx(expected)  # the reference used below
    loss = ctc_loss(
        torch.from_numpy(log_probs).float().unsqueeze(1),
        torch.tensor([target], dtype=torch.long).reshape(1, len(target)),
        torch.tensor([frames]),
        torch.tensor([len(target)]),
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_ctc_of_a_padded_batch_equals_the_numpy_forward_algorithm() -> None:
    frames, units, symbols = [60, 41, 7, 30], [20, 5, 3, 0], 9
    logits = random_logits((60, 4, symbols), seed=1)
    targets = random_targets(units, symbols, seed=2)
    log_probs = log_softmax(logits.numpy())
    expected = sum(ctc_by_forward(log_probs[: frames[b], b], targets[b, : units[b]].tolist()) for b in range(4))
    loss = ctc_loss(logits.log_softmax(-1), targets, torch.tensor(frames), torch.tensor(units))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_ctc_with_another_blank_index() -> None:
    logits = random_logits((6, 1, 4), seed=3)
    expected = ctc_by_enumeration(log_softmax(logits[:, 0].numpy()), [0, 1], blank=3)
    loss = ctc_loss(logits.log_softmax(-1), torch.tensor([[0, 1]]), torch.tensor([6]), torch.tensor([2]), blank=3)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_ctc_by_hand() -> None:
    # Two frames with p(blank) = 1/4 and p(a) = 3/4. The paths of "a" are a-, -a and aa.
    log_probs = torch.tensor([0.25, 0.75]).log().expand(2, 1, 2)
    loss = ctc_loss(log_probs, torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1]))
    assert loss.item() == pytest.approx(-np.log(2 * 0.25 * 0.75 + 0.75**2), abs=1e-6)


def test_infinite_ctc_is_zeroed_only_on_request() -> None:
    targets, units, frames = torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 2]), torch.tensor([2, 2])
    logits = random_logits((2, 2, 3), seed=4).requires_grad_()
    assert ctc_loss(logits.log_softmax(-1), targets, frames, units).isposinf()
    loss = ctc_loss(logits.log_softmax(-1), targets, frames, units, zero_infinity=True)
    loss.backward()
    alone = ctc_by_forward(log_softmax(logits[:, 1].detach().numpy()), [1, 2])
    assert loss.item() == pytest.approx(alone, rel=1e-6)
    assert logits.grad is not None
    assert (logits.grad[:, 0] == 0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -float("inf")])
def test_padded_frames_change_neither_ctc_nor_its_gradient(padding: float) -> None:
    lengths, targets, units = torch.tensor([5, 2]), torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])
    clean = random_logits((5, 2, 4), 11).log_softmax(-1)
    dirty = clean.clone()
    dirty[2:, 1] = padding
    clean.requires_grad_()
    dirty.requires_grad_()
    expected, loss = ctc_loss(clean, targets, lengths, units), ctc_loss(dirty, targets, lengths, units)
    expected.backward()
    loss.backward()
    assert torch.equal(loss, expected)
    assert clean.grad is not None
    assert dirty.grad is not None
    assert torch.equal(dirty.grad, clean.grad)
    assert (dirty.grad[2:, 1] == 0).all()
