"""Parameters of a checkpoint made those of a model with other exits: new student heads, exits that are not there."""

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
    """Fill in students that the checkpoint lacks, leave out exits that the model lacks, both in place.

    Args:
        state: the checkpoint's parameters by name.
        prefix: of the model's parameters in it.
        own: the model's parameters by name, as they were initialised.
        depth: L of the model.
        exits: layer counts that have a head in the model, the deepest among them the last layer that is built.

    Raises:
        UserError: the checkpoint has more layers than the model.
    """
    names = [key[len(prefix) :] for key in state if key.startswith(prefix)]
    layers = 1 + max((int(found[1]) for name in names if (found := _LAYER.match(name))), default=-1)
    if layers > depth:
        raise UserError(
            f"the fine-tuned checkpoint has {layers} layers, the model {depth}: give model.w2v_path the encoder that "
            f"it was fine-tuned from and leave model.keep_layers at 0 (it prunes), or leave the checkpoint out"
        )
    if depth in exits:
        _fill_in_students(state, prefix, own)
    for name in names:
        above = depth not in exits and name.startswith(_ABOVE)
        if name not in own and (above or name.startswith(_STUDENTS)):
            del state[prefix + name]


def _fill_in_students(state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> None:
    """A student's layer norm starts from the checkpoint's final one, the rest as it is."""
    missing = [name for name in own if name.startswith(_STUDENTS) and prefix + name not in state]
    for name in missing:
        final = f"{prefix}w2v_encoder.w2v_model.encoder.{name.split('.', 2)[2]}"
        state[prefix + name] = state[final].clone() if "layer_norm" in name and final in state else own[name]
    heads = sorted({int(name.split(".")[1]) for name in missing})
    if heads:
        logger.info("the checkpoint has no head for student layers %s: they start fresh", ", ".join(map(str, heads)))
