"""Convolutions of the feature extractor, and how they turn samples into frames."""

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fairseq_skd.errors import UserError

# Far above any feature extractor, and small enough that parsing any text is cheap.
LONGEST_TEXT = 2000
MOST_LAYERS = 100
LARGEST = 20_000


class ConvLayer(NamedTuple):
    """One convolution of the feature extractor."""

    channels: int
    kernel: int
    stride: int


class FrameGrid(NamedTuple):
    """The samples that each frame covers. Frames of two encoders with equal grids correspond.

    Attributes:
        kernels: one per convolution, in samples or frames of the convolution below.
        strides: one per convolution.
        multiple: batches are cut to a multiple of this number of frames.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int

    @property
    def step(self) -> int:
        """Number of samples from one frame to the next."""
        return math.prod(self.strides)

    @property
    def width(self) -> int:
        """Number of samples behind one frame."""
        return receptive_field([ConvLayer(1, *sizes) for sizes in zip(self.kernels, self.strides, strict=True)])

    def frames(self, samples: int) -> int:
        """Count the frames of an utterance, before they are cut to a multiple."""
        return max(0, (samples - self.width) // self.step + 1)

    def cut_frames(self, samples: int) -> int:
        """Count the frames of an utterance that the encoder outputs."""
        frames = self.frames(samples)
        return frames - frames % self.multiple

    def samples(self, frames: int) -> int:
        """Count the samples behind a number of neighbouring frames, at least 1."""
        return (frames - 1) * self.step + self.width

    @property
    def shortest(self) -> int:
        """Number of samples that an utterance needs, so that the cut leaves it a frame."""
        return self.samples(self.multiple)

    @classmethod
    def of(cls, architecture: Mapping[str, Any]) -> "FrameGrid":
        """Build the grid from an architecture dict."""
        layers = parse_conv_layers(architecture["conv_feature_layers"])
        kernels, strides = (tuple(getattr(layer, name) for layer in layers) for name in ("kernel", "stride"))
        return cls(kernels, strides, int(architecture.get("crop_seq_to_multiple", 1)))

    def __str__(self) -> str:
        kernels, strides = ("x".join(map(str, sizes)) for sizes in (self.kernels, self.strides))
        cut = f", cut to a multiple of {self.multiple}" if self.multiple > 1 else ""
        return f"kernels {kernels}, strides {strides}{cut}"


def parse_conv_layers(text: str) -> list[ConvLayer]:
    """Read fairseq's ``conv_feature_layers``.

    An example is ``[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2``. fairseq passes this string,
    which comes from an untrusted checkpoint, to ``eval``. Here only lists, triples of positive
    integers, ``+`` and ``*`` are allowed.

    Raises:
        UserError: the text is anything else.
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
        if max(layer) > LARGEST:
            raise UserError(
                f"conv_feature_layers={text[:200]!r} has a number above {LARGEST:,}, more than any encoder has"
            )
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


def receptive_field(layers: Sequence[ConvLayer]) -> int:
    """Count the samples behind one frame of a stack of convolutions."""
    samples = 1
    for _, kernel, stride in reversed(layers):
        samples = (samples - 1) * stride + kernel
    return samples
