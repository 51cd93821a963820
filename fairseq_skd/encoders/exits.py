"""Which layers may be exits: the full model (exit L) and its students (exits l < L)."""

from collections.abc import Sequence

from fairseq_skd.errors import UserError


def check_student_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """The students' layer counts, in the given order.

    Args:
        layers: 1-based counts; empty for plain CTC fine-tuning.
        depth: L.

    Raises:
        UserError: a layer that does not exist, 0, a duplicate, or L itself.
    """
    valid = f"students of this {depth}-layer encoder have 1 to {depth - 1} layers, each given once"
    if depth == 1:
        valid = "an encoder of one layer has no students, set it to []"
    if len(layers) > depth:
        raise UserError(f"model.student_layers names {len(layers):,} layers; {valid}")
    for layer in layers:
        if layer == depth:
            raise UserError(f"model.student_layers={list(layers)}: {layer} layers are the full model itself; {valid}")
        if not 1 <= layer < depth:
            raise UserError(f"model.student_layers={list(layers)}: there is no student of {layer} layers; {valid}")
    if len(set(layers)) < len(layers):
        raise UserError(f"model.student_layers={list(layers)} names a layer twice; {valid}")
    return tuple(layers)


def check_decode_layer(layer: int, students: Sequence[int], depth: int, key: str = "model.decode_layer") -> int:
    """The exit to decode with, as a layer count.

    Args:
        layer: 0 or L for the full model, l for a student.
        students: what was trained.
        depth: L.
        key: where the layer was given, for messages.

    Raises:
        UserError: no exit there.
    """
    exit_layer = depth if layer == 0 else layer
    if exit_layer != depth and exit_layer not in students:
        trained = " or ".join(str(count) for count in sorted(students)) or "none: it was trained without a student"
        raise UserError(
            f"{key}={layer}: the checkpoint has no exit there; take 0 for the full model of {depth} layers, "
            f"or a student's layer count ({trained})"
        )
    return exit_layer
