"""Load a checkpoint into a model with other exits: add student heads, drop unused exits."""

import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence

from torch import Tensor

from fairseq_skd.errors import UserError

logger = logging.getLogger(__name__)

_STUDENTS = "student_heads."  # what fairseq's fine-tuned models lack
_LAYER = re.compile(r"w2v_encoder\.w2v_model\.encoder\.layers\.(\d+)\.")
_ABOVE = ("w2v_encoder.proj.", "w2v_encoder.w2v_model.encoder.layers.", "w2v_encoder.w2v_model.encoder.layer_norm.")


def adapt(
    state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], depth: int, exits: Sequence[int]
) -> None:
    """Add students that the checkpoint lacks and drop exits that the model lacks, in place.

    Args:
        state: the checkpoint's parameters by name.
        prefix: of the model's parameter names in ``state``.
        own: the model's initial parameters by name.
        depth: L of the model.
        exits: layer counts of the model's heads; the model is built up to the deepest exit.

    Raises:
        UserError: the checkpoint has more layers than the model.
    """
    names = [key[len(prefix) :] for key in state if key.startswith(prefix)]
    layers = 1 + max((int(found[1]) for name in names if (found := _LAYER.match(name))), default=-1)
    if layers > depth:
        raise UserError(
            f"the fine-tuned checkpoint has {layers} layers but the model has {depth}: set model.w2v_path to the "
            f"encoder that it was fine-tuned from and model.keep_layers=0 (no layer pruning), or omit the checkpoint"
        )
    if depth in exits:
        _fill_in_students(state, prefix, own)
    for name in names:
        above = depth not in exits and name.startswith(_ABOVE)
        if name not in own and (above or name.startswith(_STUDENTS)):
            del state[prefix + name]


def _fill_in_students(state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> None:
    """Add missing student heads; a layer norm starts as the checkpoint's final layer norm."""
    missing = [name for name in own if name.startswith(_STUDENTS) and prefix + name not in state]
    for name in missing:
        final = f"{prefix}w2v_encoder.w2v_model.encoder.{name.split('.', 2)[2]}"
        state[prefix + name] = state[final].clone() if "layer_norm" in name and final in state else own[name]
    heads = sorted({int(name.split(".")[1]) for name in missing})
    if heads:
        logger.info(
            "the checkpoint has no head for student layers %s: they start untrained", ", ".join(map(str, heads))
        )
