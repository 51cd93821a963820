"""The feature extractor's arithmetic: which layers it has, and how many frames come out of how many samples."""

import ast
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from fairseq_skd.errors import UserError

# Far beyond any feature extractor, and so little that reading the text costs nothing whatever it says.
LONGEST_TEXT = 2000
MOST_LAYERS = 100


class ConvLayer(NamedTuple):
    """One convolution of the feature extractor."""

    channels: int
    kernel: int
    stride: int


def parse_conv_layers(text: str) -> list[ConvLayer]:
    """Read fairseq's ``conv_feature_layers``, such as ``[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2``.

    fairseq runs this string through Python's evaluator, and it comes out of a checkpoint: a stranger's text. Here only
    lists, triples of positive integers, ``+`` and ``*`` are understood.

    Raises:
        UserError: anything else.
    """
    complaint = f"conv_feature_layers={str(text)[:200]!r} is not a sum of lists of (channels, kernel, stride) triples"
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        raise UserError(complaint)
    try:
        layers = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(complaint) from error
    if not isinstance(layers, list) or not layers:
        raise UserError(complaint)
    for layer in layers:
        if not isinstance(layer, tuple) or len(layer) != 3 or any(type(size) is not int or size < 1 for size in layer):
            raise UserError(complaint)
    return [ConvLayer(*layer) for layer in layers]


def _value(node: ast.expr) -> list | tuple | int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        if (
            isinstance(node.op, ast.Mult)
            and isinstance(left, list)
            and isinstance(right, int)
            and len(left) * right <= MOST_LAYERS
        ):
            return left * right
    raise ValueError(ast.dump(node))


def frame_lengths(samples: Tensor, layers: Sequence[ConvLayer]) -> Tensor:
    """Frames that the feature extractor gives for each utterance, from its kernels and strides.

    fairseq's HuBERT folds the padding mask of the samples instead and counts one frame too many in padded batches.

    Args:
        samples: (B,) real samples, integer.
        layers: the convolutions.

    Returns:
        (B,) real frames, at least 1: attention over no frame at all would give NaN.
    """
    for _, kernel, stride in layers:
        samples = (samples - kernel).div(stride, rounding_mode="floor") + 1
    return samples.clamp(min=1)


def receptive_field(layers: Sequence[ConvLayer]) -> int:
    """Samples behind one frame of a stack of convolutions."""
    samples = 1
    for _, kernel, stride in reversed(layers):
        samples = (samples - 1) * stride + kernel
    return samples
