"""Count the multiply-adds of recognition from the architecture."""

from collections.abc import Sequence
from dataclasses import dataclass

from fairseq_skd.encoders.convolutions import ConvLayer


@dataclass(frozen=True)
class Shape:
    """The architecture, as far as it matters to the count.

    Attributes:
        conv_layers: convolutions of the feature extractor.
        layers: transformer layers of the full model.
        width: model width C.
        inner: width of the feed-forward blocks.
        position_kernel: kernel of the positional convolution.
        position_groups: groups of the positional convolution.
        symbols: size of the dictionary, V.
        multiple: the attention pads frames to a multiple of this.
    """

    conv_layers: Sequence[ConvLayer]
    layers: int = 12
    width: int = 768
    inner: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    symbols: int = 32
    multiple: int = 2


def multiply_adds(shape: Shape, samples: int, exit_layer: int, heads: int = 1) -> dict[str, int]:
    """Count the multiply-adds of one utterance, part by part.

    As usual, only matrix products and convolutions count: no norms, activations, softmax or sums.

    Args:
        shape: the architecture.
        samples: audio samples of the utterance.
        exit_layer: layers that run.
        heads: CTC heads that run.

    Returns:
        ``convolutions``, ``projection`` (features to the encoder's width), ``position``,
        ``linear`` (linear maps of the layers), ``attention`` (scores and weighted sums), ``heads``.
    """
    convolutions, frames, channels = 0, samples, 1
    for layer in shape.conv_layers:
        frames = (frames - layer.kernel) // layer.stride + 1
        convolutions += frames * layer.channels * channels * layer.kernel
        channels = layer.channels
    padded = -(-frames // shape.multiple) * shape.multiple
    # An even kernel, padded by half on both sides, gives one extra frame, removed afterwards.
    placed = frames + (shape.position_kernel % 2 == 0)
    width = shape.width
    return {
        "convolutions": convolutions,
        "projection": frames * channels * width if channels != width else 0,
        "position": placed * width * (width // shape.position_groups) * shape.position_kernel,
        "linear": exit_layer * padded * (4 * width * width + 2 * width * shape.inner),
        "attention": exit_layer * 2 * padded * padded * width,
        "heads": heads * frames * width * shape.symbols,
    }
