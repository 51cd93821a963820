"""Greedy CTC decoding of a whole batch at once."""

import torch
from torch import Tensor


def greedy_units(logits: Tensor, lengths: Tensor, blank: int = 0) -> list[list[int]]:
    """The best path of each utterance, repeats merged and blanks dropped.

    Args:
        logits: (T, B, V), any monotone transform of the posteriors.
        lengths: (B,), real frames of each utterance; frames beyond are ignored.
        blank: index of the blank symbol.

    Returns:
        one list of unit indices an utterance.
    """
    best = logits.argmax(dim=-1).transpose(0, 1)  # (T, B, V) -> (B, T)
    frames = torch.arange(best.size(1), device=best.device)
    kept = (best != blank) & (frames < lengths.to(best.device).unsqueeze(1))
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    counts = kept.sum(dim=1).tolist()
    return [units.tolist() for units in best[kept].cpu().split(counts)]
