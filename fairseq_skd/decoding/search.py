"""Runs a model over batches and collects what it recognises."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from fairseq_skd.errors import UserError
from fairseq_skd.scoring.beam import Hypothesis
from fairseq_skd.scoring.greedy import greedy_units

Searcher = Callable[[Tensor, Tensor], list[Hypothesis]]  # (T, B, V) logits and (B,) frames


class CtcModel(Protocol):
    """What is asked of a model."""

    def __call__(self, source: Tensor, padding_mask: Tensor | None) -> dict[str, Any]:
        """Audio (B, samples) -> ``encoder_out`` (T, B, V), ``frame_lengths`` (B,) and what :meth:`get_logits` wants."""

    def get_logits(self, net_output: dict[str, Any]) -> Tensor:
        """(T, B, V) logits, blank with certainty on padded frames."""


def greedy(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """The best path of each utterance."""
    return [Hypothesis(units, None) for units in greedy_units(logits, lengths)]


def weigh_blank(search: Searcher, weight: float, blank: int) -> Searcher:
    """The search with ``weight`` added to the blank's logit on every frame."""

    def weighed(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        change = torch.zeros_like(logits[0, 0])
        change[blank] = weight
        return search(logits + change, lengths)

    return weighed if weight else search


class Recognition(NamedTuple):
    """What came out of a whole subset.

    Attributes:
        hypotheses: by place in the manifest, in its order; utterances that could not be read are missing.
        samples: audio samples that were decoded, padding not counted.
        seconds: wall time of encoder, head and search; reading audio is not in it.
    """

    hypotheses: dict[int, Hypothesis]
    samples: int
    seconds: float


def recognise(
    model: CtcModel,
    batches: Iterable[dict[str, Any]],
    utterances: int,
    device: torch.device,
    dtype: torch.dtype,
    where: Callable[[int], str] = str,
    search: Searcher = greedy,
) -> Recognition:
    """Encoder, head and search over all batches.

    Args:
        model: in evaluation mode, on ``device`` and of ``dtype``.
        batches: fairseq's sample dicts with ``id`` and ``net_input`` (``source`` (B, samples), ``padding_mask``).
        utterances: how many there are in all, for the progress bar.
        device: where the model is.
        dtype: what it computes in.
        where: names an utterance by id, for messages.
        search: from logits to hypotheses.

    Raises:
        UserError: logits that are not finite, or memory that does not suffice.
    """
    hypotheses: dict[int, Hypothesis] = {}
    samples, seconds = 0, 0.0
    with torch.inference_mode(), tqdm(total=utterances, desc="decoding", unit="utterance") as progress:
        for batch in batches:
            started = time.perf_counter()
            try:
                found = search(*_frames(model, batch, device, dtype, where))
            except torch.cuda.OutOfMemoryError as error:
                raise UserError("the GPU's memory does not suffice: lower dataset.max_tokens") from error
            seconds += time.perf_counter() - started
            hypotheses.update(zip(batch["id"].tolist(), found, strict=True))
            samples += _real_samples(batch["net_input"])
            progress.update(len(found))
    return Recognition(dict(sorted(hypotheses.items())), samples, seconds)


def _frames(
    model: CtcModel, batch: dict[str, Any], device: torch.device, dtype: torch.dtype, where: Callable[[int], str]
) -> tuple[Tensor, Tensor]:
    """Logits (T, B, V) of a batch and its real frames (B,)."""
    source = batch["net_input"]["source"].to(device=device, dtype=dtype)
    padding_mask = batch["net_input"].get("padding_mask")
    padding_mask = padding_mask.to(device) if padding_mask is not None else None
    net = model(source=source, padding_mask=padding_mask)
    finite = torch.isfinite(net["encoder_out"]).all(dim=2).all(dim=0)  # (T, B, V) -> (B,)
    if not bool(finite.all()):
        first = batch["id"].tolist()[int((~finite).int().argmax())]
        raise UserError(
            f"the model's output is not finite for {where(first)}: its weights or the precision are at fault"
        )
    return model.get_logits(net), net["frame_lengths"]


def _real_samples(net_input: dict[str, Any]) -> int:
    padding_mask = net_input.get("padding_mask")
    return net_input["source"].numel() - (int(padding_mask.sum()) if padding_mask is not None else 0)
