"""CTC heads and their exits: the full model (exit L) and its students (exits l < L)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fairseq_skd.errors import UserError, shown


def check_student_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Check the layer counts of the students and return them in the given order.

    Args:
        layers: 1-based counts; empty for plain CTC fine-tuning.
        depth: L.

    Raises:
        UserError: a count is not between 1 and L - 1, or is given twice.
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


class NoExitError(UserError):
    """The model has no exit at this layer."""

    def __init__(self, layer: int, students: Sequence[int], depth: int) -> None:
        trained = " or ".join(str(count) for count in sorted(students)) or "none: it was trained without a student"
        super().__init__(
            f"the checkpoint has no exit at layer {layer}: use 0 for the full model of {depth} layers, or a student's "
            f"layer count ({trained})"
        )


def check_exit(layer: int, students: Sequence[int], depth: int) -> int:
    """Check an exit and return its layer count.

    >>> check_exit(0, [6, 3], 12), check_exit(6, [6, 3], 12)
    (12, 6)

    Args:
        layer: 0 or L for the full model, l for a student.
        students: layer counts of the trained students.
        depth: L.

    Raises:
        NoExitError: the model has no exit at this layer.
    """
    exit_layer = depth if layer == 0 else layer
    if exit_layer != depth and exit_layer not in students:
        raise NoExitError(layer, students, depth)
    return exit_layer


# fairseq names the full model's head, we name the students' heads.
_HEAD_TENSOR = re.compile(r"(w2v_encoder|student_heads\.\d+)\.proj\.(weight|bias)")


def head_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select weights and biases of the CTC heads, (V, ...), from a checkpoint's tensors."""
    return {name: tensor for name, tensor in weights.items() if _HEAD_TENSOR.fullmatch(name) and tensor.dim() > 0}


def ctc_projection(width: int, symbols: int) -> nn.Linear:
    """Make a linear head, initialised as in fairseq: Xavier uniform weights, zero bias."""
    projection = nn.Linear(width, symbols)
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection


class StudentHead(nn.Module):
    """The CTC head of a self-student.

    The layers of a pre-LN encoder return unnormalised hidden states. Its student therefore has a
    layer norm, which starts as a copy of the encoder's final layer norm.

    Args:
        width: C.
        symbols: V.
        final_norm: the encoder's final layer norm if it is pre-LN, else None.
    """

    def __init__(self, width: int, symbols: int, final_norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.layer_norm: nn.LayerNorm | None = None
        if final_norm is not None:
            self.layer_norm = nn.LayerNorm(width, eps=final_norm.eps)
            self.layer_norm.load_state_dict(final_norm.state_dict())
        self.proj = ctc_projection(width, symbols)

    def forward(self, x: Tensor, dropout: nn.Module) -> Tensor:
        """Compute logits from the hidden states of the exit layer: (T, B, C) -> (T, B, V)."""
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return self.proj(dropout(x))


_SHOWN = 5


@dataclass(frozen=True)
class SymbolMap:
    """The row of a checkpoint's CTC head from which each symbol of a dictionary starts.

    Attributes:
        rows: one entry per symbol of the new dictionary, None if the checkpoint lacks the symbol.
        new: symbols that the checkpoint lacks.
        dropped: symbols that only the checkpoint has.
    """

    rows: tuple[int | None, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    @classmethod
    def between(cls, saved: Sequence[str], symbols: Sequence[str]) -> "SymbolMap":
        """Map the symbols of a checkpoint to the symbols of a dictionary.

        >>> SymbolMap.between(["<s>", "E", "T"], ["<s>", "T", "A"])
        SymbolMap(rows=(0, 2, None), new=('A',), dropped=('E',))
        """
        row, wanted = {symbol: index for index, symbol in enumerate(saved)}, set(symbols)
        return cls(
            rows=tuple(row.get(symbol) for symbol in symbols),
            new=tuple(symbol for symbol in symbols if symbol not in row),
            dropped=tuple(symbol for symbol in saved if symbol not in wanted),
        )

    def apply(self, saved: Tensor, fresh: Tensor) -> Tensor:
        """Take the rows that the checkpoint has; the others stay as initialized.

        Args:
            saved: weight or bias of a head in the checkpoint, (V of the checkpoint, ...).
            fresh: the same tensor of the new model, (V, ...).
        """
        known = [index for index, row in enumerate(self.rows) if row is not None]
        mapped = fresh.detach().to(device=saved.device, dtype=saved.dtype, copy=True)
        mapped[known] = saved[[self.rows[index] for index in known]]
        return mapped

    def __str__(self) -> str:
        """``30 mapped, 2 new (Ä, Ö), 0 dropped``."""
        mapped = len(self.rows) - len(self.new)
        return f"{mapped} mapped, {_counted(self.new, 'new')}, {_counted(self.dropped, 'dropped')}"


def _counted(symbols: Sequence[str], what: str) -> str:
    more = ", ..." if len(symbols) > _SHOWN else ""
    return f"{len(symbols)} {what}" + (f" ({', '.join(map(shown, symbols[:_SHOWN]))}{more})" if symbols else "")
