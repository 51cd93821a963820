"""Greedy CTC decoding of a whole batch at once."""

from typing import NamedTuple

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """What a search finds in an utterance.

    Attributes:
        units: indices, repeats merged and blanks dropped.
        words: as the lexicon has them; None where there is no lexicon and words are to be made of the units.
    """

    units: list[int]
    words: list[str] | None


def greedy(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """The best path of each utterance: (T, B, V) logits, (B,) real frames."""
    return [Hypothesis(units, None) for units in greedy_units(logits, lengths)]


def greedy_units(logits: Tensor, lengths: Tensor, blank: int = 0) -> list[list[int]]:
    """The best path of each utterance, repeats merged and blanks dropped.

    Args:
        logits: (T, B, V), any monotone transform of the posteriors.
        lengths: (B,), real frames of each utterance; frames beyond are ignored.
        blank: index of the blank symbol.

    Returns:
        one list of unit indices per utterance.
    """
    best = logits.argmax(dim=-1).transpose(0, 1)  # (T, B, V) -> (B, T)
    frames = torch.arange(best.size(1), device=best.device)
    kept = (best != blank) & (frames < lengths.to(best.device).unsqueeze(1))
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    counts = kept.sum(dim=1).tolist()
    return [units.tolist() for units in best[kept].cpu().split(counts)]
