"""Parameters of a checkpoint made those of a model with other exits: new student heads, exits that are not there."""

import logging
import re
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fairseq_skd.errors import UserError

logger = logging.getLogger(__name__)

_STUDENTS = ("student_heads.", "conditioners.")  # what fairseq's fine-tuned models lack
_LAYER = re.compile(r"w2v_encoder\.w2v_model\.encoder\.layers\.(\d+)\.")
_ABOVE = ("w2v_encoder.proj.", "w2v_encoder.w2v_model.encoder.layers.", "w2v_encoder.w2v_model.encoder.layer_norm.")


@dataclass(frozen=True)
class Shape:
    """What of a model decides which parameters it has.

    Attributes:
        depth: L.
        exits: layer counts that have a head, the deepest among them the last layer that is built.
        conditioned: students whose posteriors the layers above them see.
    """

    depth: int
    exits: Sequence[int]
    conditioned: Collection[int]


def adapt(state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], shape: Shape) -> None:
    """Fill in students that the checkpoint lacks, leave out exits that the model lacks, both in place.

    Args:
        state: the checkpoint's parameters by name.
        prefix: of the model's parameters in it.
        own: the model's parameters by name, as they were initialised.
        shape: of the model.

    Raises:
        UserError: the checkpoint has more layers than the model, or layers of the model were trained to see a student's
            posteriors, and would not see them here.
    """
    names = [key[len(prefix) :] for key in state if key.startswith(prefix)]
    layers = 1 + max((int(found[1]) for name in names if (found := _LAYER.match(name))), default=-1)
    if layers > shape.depth:
        raise UserError(
            f"the fine-tuned checkpoint has {layers} layers, the model {shape.depth}: model.keep_layers prunes what "
            f"model.w2v_path names; leave it at 0 to start from this checkpoint, or leave the checkpoint out"
        )
    if shape.depth in shape.exits:
        _fill_in_students(state, prefix, own)
    for name in names:
        if name.startswith("conditioners."):
            _check_conditioned(int(name.split(".")[1]), shape)
    for name in names:
        above = shape.depth not in shape.exits and name.startswith(_ABOVE)
        if name not in own and (above or name.startswith(_STUDENTS)):
            del state[prefix + name]


def _fill_in_students(state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> None:
    """A student's layer norm starts from the checkpoint's final one, the rest as it is."""
    missing = [name for name in own if name.startswith(_STUDENTS) and prefix + name not in state]
    for name in missing:
        final = f"{prefix}w2v_encoder.w2v_model.encoder.{name.split('.', 2)[2]}"
        state[prefix + name] = state[final].clone() if "layer_norm" in name and final in state else own[name]
    heads = sorted({int(name.split(".")[1]) for name in missing if name.startswith("student_heads.")})
    if heads:
        logger.info("the checkpoint has no head for student layers %s: they start fresh", ", ".join(map(str, heads)))


def _check_conditioned(student: int, shape: Shape) -> None:
    if student < max(shape.exits) and student not in shape.conditioned:
        raise UserError(
            f"the checkpoint's layers above {student} were trained to see what its student of {student} layers says: "
            f"set model.condition_on_students=true and keep {student} among model.student_layers"
        )
