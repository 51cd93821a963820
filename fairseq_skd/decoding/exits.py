"""Which exit of a checkpoint is decoded: ``decoding.layer``, or an override of ``model.decode_layer``."""

import ast
from collections.abc import Sequence
from typing import Any

from fairseq_skd.encoders.exits import check_decode_layer
from fairseq_skd.errors import UserError

OVERRIDES = "common_eval.model_overrides"


def read_overrides(overrides: str | dict[str, Any]) -> int | None:
    """The ``decode_layer`` of ``common_eval.model_overrides``, None if it is not overridden.

    Args:
        overrides: a Python dict as text, as fairseq wants it, or a dict that a YAML spells out.

    Raises:
        UserError: not a dict; a key other than ``decode_layer``; not a layer count.
    """
    values: Any = overrides
    if isinstance(overrides, str):
        try:
            values = ast.literal_eval(overrides.strip() or "{}")
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            values = None
    if not isinstance(values, dict):
        raise UserError(f"{OVERRIDES}={overrides} is not a dict in Python's notation, such as {{'decode_layer': 6}}")
    for key in values:
        if key != "decode_layer":
            raise UserError(f"{OVERRIDES} sets {key}, only decode_layer can be overridden: the checkpoint has the rest")
    layer = values.get("decode_layer")
    if "decode_layer" in values and (type(layer) is not int or layer < 0):
        raise UserError(f"{OVERRIDES} sets decode_layer to {layer!r}, it takes a layer count")
    return layer


def choose_exit(
    layer: int | None, override: int | None, depth: int, students: Sequence[int], key: str = "decoding.layer"
) -> int:
    """The layers to run.

    Args:
        layer: of ``key``; 0 is the full model, None leaves it to the override.
        override: from :func:`read_overrides`; None and None is the full model.
        depth: L, the layers of the full model.
        students: the checkpoint's ``model.student_layers``.
        key: where ``layer`` was given, for messages.

    Returns:
        a layer count between 1 and L; L is the full model.

    Raises:
        UserError: the two disagree, or the checkpoint has no such exit.
    """
    if layer is not None and override is not None and (layer or depth) != (override or depth):
        raise UserError(f"{key}={layer} disagrees with {OVERRIDES}, where decode_layer is {override}: drop one")
    if layer is None:
        return check_decode_layer(override or 0, students, depth, f"{OVERRIDES}: decode_layer")
    return check_decode_layer(layer, students, depth, key)
