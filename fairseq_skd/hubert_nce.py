"""HuBERT's pretraining loss with one matrix product: fairseq compares each frame with its own copy of every label.

For S frames, V labels and width C, fairseq's ``HubertModel.compute_nce`` builds several tensors of V x S x C numbers.
All frames share their labels, so two normalised matrices of S x C and V x C say the same.
"""

import functools

import torch
import torch.nn.functional as F
from fairseq.models.hubert.hubert import HubertModel
from torch import Tensor

EPSILON = 1e-8  # torch.cosine_similarity's smallest norm


def nce_logits(frames: Tensor, positives: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compare each frame with its own label and with all labels: HuBERT (arXiv 2106.07447), equation 3.

    Args:
        frames: projected frames, (S, C).
        positives: embedding of each frame's own label, (S, C).
        labels: embeddings of all labels, (V, C).
        temperature: divides the cosines.

    Returns:
        (S, 1 + V) in the type of ``frames``, computed in single precision: the positive, then all labels. A label that
        equals the positive is -inf there.
    """
    with torch.autocast(frames.device.type, enabled=False):  # a product in half precision would be another loss
        directions = unit_rows(frames.float())
        positive = (directions * unit_rows(positives.float())).sum(-1, keepdim=True)  # (S, 1)
        negative = directions @ unit_rows(labels.float()).T  # (S, V)
    logits = torch.cat([positive, negative], dim=1).type_as(frames) / temperature
    return logits.masked_fill(F.pad(equal_rows(positives, labels), (1, 0)), float("-inf"))


def unit_rows(rows: Tensor) -> Tensor:
    """Divide rows (N, C) by their norms, and by EPSILON where a norm is smaller.

    As in ``torch.cosine_similarity``, the gradient does not see that limit.
    """
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / (norms + (norms.clamp(min=EPSILON) - norms).detach())


def equal_rows(first: Tensor, second: Tensor) -> Tensor:
    """Tell which rows of (S, C) equal which rows of (V, C) in all columns: (S, V) of bool."""
    equal = first[:, None, 0] == second[None, :, 0]
    row, other = equal.nonzero(as_tuple=True)  # few pairs agree in one column, and only they are compared in all
    equal[row, other] = (first[row] == second[other]).all(-1)
    return equal


def speed_up_hubert_pretraining() -> None:
    """Make fairseq's ``HubertModel.compute_nce`` use :func:`nce_logits`.

    With ``model.target_glu`` each frame gets labels of its own, and fairseq's function stays in use.
    """
    original = HubertModel.compute_nce
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def compute_nce(self: HubertModel, x: Tensor, pos: Tensor, negs: Tensor) -> Tensor:
        # negs (V, S, C) is a view that repeats one label set. Taking a frame's labels out of it would be correct, but
        # its gradient has V x S x C numbers again. So look for the set itself.
        for labels in self.label_embs_concat.split(self.num_classes, 0):
            repeats = negs.stride(1) == 0 and len(negs) == len(labels)
            if repeats and negs.data_ptr() == labels.data_ptr():
                return nce_logits(x, pos, labels, self.logit_temp)
        return original(self, x, pos, negs)

    HubertModel.compute_nce = compute_nce
