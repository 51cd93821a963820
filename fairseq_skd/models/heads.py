"""CTC heads."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

# fairseq's names of the full model's head, and ours of the students'.
_HEAD_TENSOR = re.compile(r"(w2v_encoder|student_heads\.\d+)\.proj\.(weight|bias)")


def head_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights and biases of the CTC heads among a checkpoint's tensors, (V, ...)."""
    return {name: tensor for name, tensor in weights.items() if _HEAD_TENSOR.fullmatch(name) and tensor.dim() > 0}


def ctc_projection(width: int, symbols: int) -> nn.Linear:
    """A linear head initialised as fairseq's: Xavier uniform weights, zero bias."""
    projection = nn.Linear(width, symbols)
    nn.init.xavier_uniform_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection


class StudentHead(nn.Module):
    """The CTC head of a self-student.

    Hidden states of a pre-LN encoder leave a layer unnormalised; its student gets a layer norm of its own, which starts
    as a copy of the encoder's final one.

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
        """(T, B, C) hidden states of the exit layer -> (T, B, V) logits."""
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return self.proj(dropout(x))
