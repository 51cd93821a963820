"""Greedy CTC decoding of a whole batch at once."""

from typing import NamedTuple

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """Result of a search for one utterance.

    Attributes:
        units: indices of units, repeats merged and blanks removed.
        words: words of the lexicon; None without a lexicon: the caller joins units into words.
    """

    units: list[int]
    words: list[str] | None


def greedy(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """Find the best path of each utterance from (T, B, V) logits and (B,) numbers of frames."""
    return [Hypothesis(units, None) for units in greedy_units(logits, lengths)]


def greedy_units(logits: Tensor, lengths: Tensor, blank: int = 0) -> list[list[int]]:
    """Find the best path of each utterance, merge repeats and remove blanks.

    Args:
        logits: (T, B, V), any monotone transform of the posteriors.
        lengths: (B,) number of frames of each utterance; frames after them are ignored.
        blank: index of the blank.

    Returns:
        one list of unit indices per utterance.

    >>> logits = torch.eye(3)[[1, 1, 0, 1, 2]].unsqueeze(1)  # (T, B, V), best path 1 1 blank 1 2
    >>> greedy_units(logits, torch.tensor([5]))
    [[1, 1, 2]]
    """
    best = logits.argmax(dim=-1).transpose(0, 1)  # (T, B, V) -> (B, T)
    frames = torch.arange(best.size(1), device=best.device)
    kept = (best != blank) & (frames < lengths.to(best.device).unsqueeze(1))
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    counts = kept.sum(dim=1).tolist()
    return [units.tolist() for units in best[kept].cpu().split(counts)]
