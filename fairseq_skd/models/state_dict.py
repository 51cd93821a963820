"""Load a checkpoint into a model with other exits: add student heads, drop unused exits."""

import logging
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

from torch import Tensor

from fairseq_skd.errors import UserError

logger = logging.getLogger(__name__)

_STUDENTS = "student_heads."  # what fairseq's fine-tuned models lack
_LAYER = re.compile(r"w2v_encoder\.w2v_model\.encoder\.layers\.(\d+)\.")
_ABOVE = ("w2v_encoder.proj.", "w2v_encoder.w2v_model.encoder.layers.", "w2v_encoder.w2v_model.encoder.layer_norm.")


def adapt(
    state: MutableMapping[str, Tensor],
    prefix: str,
    own: Mapping[str, Tensor],
    depth: int,
    exits: Sequence[int],
    keep_layers: int = 0,
) -> None:
    """Add students that the checkpoint lacks and drop exits that the model lacks, in place.

    If ``model.keep_layers`` pruned the model, it takes its layers of a deeper checkpoint. Its head
    is then the head of the checkpoint's student of as many layers, or starts untrained.

    Args:
        state: the checkpoint's parameters by name.
        prefix: of the model's parameter names in ``state``.
        own: the model's initial parameters by name.
        depth: L of the model.
        exits: layer counts of the model's heads; the model is built up to the deepest exit.
        keep_layers: ``model.keep_layers``.

    Raises:
        UserError: the checkpoint has fewer layers than the model; or more, and the model is not
            pruned.
    """
    layers = depth_of(name[len(prefix) :] for name in state if name.startswith(prefix))
    if layers > depth == keep_layers:
        _prune(state, prefix, own, depth)
    elif layers > depth:
        raise UserError(
            f"the fine-tuned checkpoint has {layers} layers but the model has {depth}: set model.w2v_path to the "
            f"encoder that it was fine-tuned from and model.keep_layers=0 (no layer pruning), or omit the checkpoint"
        )
    if 0 < layers < depth:
        raise UserError(
            f"the fine-tuned checkpoint has {layers} layers but the model has {depth}: set model.keep_layers={layers}, "
            f"or omit the checkpoint"
        )
    if depth in exits:
        _fill_in_students(state, prefix, own)
    for name in [key[len(prefix) :] for key in state if key.startswith(prefix)]:
        above = depth not in exits and name.startswith(_ABOVE)
        if name not in own and (above or name.startswith(_STUDENTS)):
            del state[prefix + name]


def depth_of(names: Iterable[str]) -> int:
    """Count the layers of a fine-tuned checkpoint from the names of its parameters."""
    return 1 + max((int(found[1]) for name in names if (found := _LAYER.match(name))), default=-1)


def full_model(weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename the parameters of a student of ``layers`` layers to those of a full model.

    >>> from torch import ones
    >>> student = {"student_heads.6.proj.bias": ones(32)}
    >>> list(full_model(student, 6))
    ['w2v_encoder.proj.bias']
    """
    student = f"{_STUDENTS}{layers}."
    return {_full_name(name, student): tensor for name, tensor in weights.items()}


def _full_name(name: str, student: str) -> str:
    if not name.startswith(student):
        return name
    part = name[len(student) :]
    return f"w2v_encoder.{part}" if part.startswith("proj.") else f"w2v_encoder.w2v_model.encoder.{part}"


def _prune(state: MutableMapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], depth: int) -> None:
    """Drop the layers above ``depth``; the head becomes the head of the student of that depth."""
    for name in [key[len(prefix) :] for key in state if key.startswith(prefix)]:
        if (found := _LAYER.match(name)) and int(found[1]) >= depth:
            del state[prefix + name]
    student = f"{_STUDENTS}{depth}."
    heads = [key for key in state if key.startswith(prefix + student)]
    for key in heads:
        state[prefix + _full_name(key[len(prefix) :], student)] = state.pop(key)
    if not heads:
        state.update({prefix + name: own[name] for name in own if name.startswith("w2v_encoder.proj.")})
        logger.info("the checkpoint has no student of %d layers: the model's head starts untrained", depth)


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
