"""Keep padding out of the real frames in evaluation, so that an utterance has the same output in any batch.

fairseq lets padding in at two places. The group norm of a ``default`` feature extractor takes its statistics over
padded frames too. Some convolutions over frames see values other than zero beyond the end of a padded utterance: a
pos_conv with a batch norm or several layers, and the conformer's. Training keeps fairseq's arithmetic, in which the
encoders were pretrained.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_skd.encoders.convolutions import ConvLayer, frame_lengths, receptive_field


def extract_features(extractor: Any, source: Tensor, samples: Tensor, conv_layers: Sequence[ConvLayer]) -> Tensor:
    """Run fairseq's feature extractor, with group norm statistics over the real samples of each utterance.

    Args:
        extractor: fairseq's ``ConvFeatureExtractionModel``, in evaluation mode.
        source: (B, samples).
        samples: (B,) real samples.
        conv_layers: the extractor's convolutions.

    Returns:
        (B, C, T) features. Padded frames hold finite values without meaning.
    """
    first, *others = extractor.conv_layers
    convolution, dropout, norm, activation = first
    if not isinstance(norm, nn.GroupNorm):
        return extractor(source)
    # Audio too short for a frame of the whole extractor counts as one frame, padding included: see frame_lengths.
    samples = samples.clamp(min=receptive_field(conv_layers))
    x = dropout(convolution(source.unsqueeze(1)))  # (B, samples) -> (B, C, T of the first convolution)
    x = activation(_norm_by_utterance(norm, x, frame_lengths(samples, conv_layers[:1]).tolist()))
    for block in others:
        x = block(x)
    return x


def _norm_by_utterance(norm: nn.Module, x: Tensor, frames: Sequence[int]) -> Tensor:
    """Normalise (B, C, T) over the first ``frames`` of each utterance, in place where no gradient needs the input."""
    normed = torch.zeros_like(x) if torch.is_grad_enabled() else x
    for i, count in enumerate(frames):
        normed[i, :, :count] = norm(x[i : i + 1, :, :count])[0]
    return normed


@contextlib.contextmanager
def zeros_on_padding(module: nn.Module, padding: Tensor | None) -> Iterator[None]:
    """Inside the block, each convolution over frames in ``module`` sees zeros on padded frames.

    Args:
        module: its convolutions take (B, C, T).
        padding: (B, T) bool, true on padded frames; None changes nothing.
    """
    if padding is None:
        yield
        return

    def silence(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0].masked_fill(padding.unsqueeze(1), 0)

    over_frames = [part for part in module.modules() if isinstance(part, nn.Conv1d) and part.kernel_size[0] > 1]
    hooks = [part.register_forward_pre_hook(silence) for part in over_frames]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
