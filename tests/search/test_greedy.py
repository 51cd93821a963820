"""Greedy decoding of a batch against a loop over frames, and by hand."""

import doctest
import itertools
from types import ModuleType

import pytest
import torch

from fairseq_skd.search import greedy, kneser_ney
from fairseq_skd.search.greedy import greedy_units


def loop(logits: torch.Tensor, lengths: list[int], blank: int) -> list[list[int]]:
    """Frame by frame: keep a unit that is not blank and differs from the previous frame."""
    results = []
    for b, length in enumerate(lengths):
        units, previous = [], None
        for t in range(length):
            symbol = max(range(logits.size(2)), key=lambda v: float(logits[t, b, v]))
            if symbol not in (previous, blank):
                units.append(symbol)
            previous = symbol
        results.append(units)
    return results


def from_paths(*paths: list[int], symbols: int = 5) -> torch.Tensor:
    """Make (T, B, V) logits with the given best path for each utterance."""
    return torch.nn.functional.one_hot(torch.tensor(paths), symbols).transpose(0, 1).float()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("blank", [0, 2])
def test_equals_the_loop(seed: int, blank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames, batch, symbols = 1 + 7 * seed, 1 + seed % 5, 3 + seed % 3
    logits = torch.randn(frames, batch, symbols, generator=generator)
    logits[..., blank] += 0.5
    lengths = torch.randint(0, frames + 1, (batch,), generator=generator)
    assert greedy_units(logits, lengths, blank) == loop(logits, lengths.tolist(), blank)


def test_every_path_of_four_frames() -> None:
    paths = [list(path) for path in itertools.product(range(3), repeat=4)]
    collapsed = [[unit for unit, _ in itertools.groupby(path) if unit != 0] for path in paths]
    assert greedy_units(from_paths(*paths), torch.full((len(paths),), 4)) == collapsed


@pytest.mark.parametrize(
    ("path", "length", "units"),
    [
        ([1, 1, 0, 1, 2, 2], 6, [1, 1, 2]),  # a blank between repeats keeps both
        ([1, 1, 1, 1, 1, 1], 6, [1]),
        ([0, 0, 0, 0, 0, 0], 6, []),
        ([3, 1, 3, 1, 3, 1], 6, [3, 1, 3, 1, 3, 1]),
        ([0, 0, 4, 1, 2, 3], 3, [4]),  # frames after the length are ignored
        ([0, 0, 4, 1, 2, 3], 2, []),
        ([1, 2, 3, 4, 1, 2], 0, []),
    ],
)
def test_by_hand(path: list[int], length: int, units: list[int]) -> None:
    assert greedy_units(from_paths(path), torch.tensor([length])) == [units]


def test_an_utterance_ends_where_the_next_begins() -> None:
    logits = from_paths([1, 2, 2], [2, 2, 0], [0, 2, 1])
    assert greedy_units(logits, torch.tensor([3, 3, 3])) == [[1, 2], [2], [2, 1]]


def test_an_empty_batch_and_no_frames() -> None:
    assert greedy_units(torch.zeros(4, 0, 3), torch.zeros(0, dtype=torch.long)) == []
    assert greedy_units(torch.zeros(0, 2, 3), torch.tensor([0, 0])) == [[], []]


@pytest.mark.parametrize("module", [greedy, kneser_ney])
def test_the_examples(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_and_any_monotone_transform(dtype: torch.dtype) -> None:
    logits = torch.randn(20, 2, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    lengths = torch.tensor([20, 11])
    expected = loop(logits, [20, 11], 0)
    assert greedy_units(logits, lengths) == expected
    assert greedy_units(logits.double().log_softmax(-1), lengths) == expected


def test_the_logits_are_unchanged() -> None:
    logits = torch.randn(9, 2, 4, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    greedy_units(logits, torch.tensor([9, 3]))
    assert torch.equal(logits, before)
