"""Runs a checkpoint over a subset and hands out the log posteriors of chosen exits, batch by batch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairseq_skd.alignment.spikes import Frames
from fairseq_skd.decoding.decode import Plan, load
from fairseq_skd.errors import UserError
from fairseq_skd.models.skd_ctc import SkdCtc


class Batch(NamedTuple):
    """Posteriors of one batch.

    Attributes:
        ids: (B,) places in the manifest.
        lengths: (B,) real frames.
        log_posteriors: layer count of an exit -> (T, B, V), float32.
    """

    ids: list[int]
    lengths: list[int]
    log_posteriors: dict[int, Tensor]


def exit_posteriors(plan: Plan, layers: Sequence[int]) -> Iterator[Batch]:
    """Run the model once over the subset, as :mod:`fairseq_skd.infer` would, and tap several exits.

    Args:
        plan: the checkpoint, whose weights are used up, and the subset.
        layers: exits, as layer counts. Layers above the highest one are not run if it is the only one.

    Raises:
        UserError: audio that cannot be read, outputs that are not finite, memory that does not suffice.
    """
    top = layers[0] if len(set(layers)) == 1 else plan.trained.depth
    model, samples = load(plan, top)
    for sample in samples:
        yield _run(model, sample, layers, plan)


def _run(model: SkdCtc, sample: dict[str, Any], layers: Sequence[int], plan: Plan) -> Batch:
    padding = sample["net_input"].get("padding_mask")
    source = sample["net_input"]["source"].to(device=plan.device, dtype=plan.dtype)
    ids = sample["id"].tolist()
    # Not around the yield: two of these generators run in turns, and would restore each other's state.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        try:
            net = model(source=source, padding_mask=padding.to(plan.device) if padding is not None else None)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError("the GPU's memory does not suffice: lower dataset.max_tokens") from error
        logits = {layer: net["exit_logits"][layer].float() for layer in layers}
        for values in logits.values():
            finite = torch.isfinite(values).all(dim=2).all(dim=0)  # (T, B, V) -> (B,)
            if not bool(finite.all()):
                where = plan.subset.where(ids[int((~finite).int().argmax())])
                raise UserError(f"{plan.trained.path}: the output is not finite for {where}")
        log_posteriors = {layer: values.log_softmax(dim=-1) for layer, values in logits.items()}
    return Batch(ids, net["frame_lengths"].tolist(), log_posteriors)


def batch_frames(log_posteriors: Tensor, lengths: Sequence[int]) -> list[Frames]:
    """Best symbol, its log posterior and the entropy of every real frame.

    Args:
        log_posteriors: (T, B, V).
        lengths: (B,) real frames; those beyond are dropped.
    """
    height, best = log_posteriors.max(dim=-1)  # (T, B)
    entropy = torch.special.entr(log_posteriors.exp()).sum(dim=-1) / np.log(2)
    columns = [values.transpose(0, 1).cpu().numpy() for values in (best, height, entropy)]  # (B, T)
    return [Frames(*(column[i, :length] for column in columns)) for i, length in enumerate(lengths)]


def frame_seconds(plan: Plan) -> float:
    """From one frame to the next: the product of the convolutions' strides, over the sampling rate."""
    return float(np.prod(plan.trained.encoder.frame_grid.strides)) / int(plan.task_config["sample_rate"])
