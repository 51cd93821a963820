"""Run a pretrained encoder once and return the hidden states of the requested layers.

In evaluation, the output of an utterance does not depend on its batch. In fairseq, padding changes
it in two places. The group norm of a ``default`` feature extractor includes padded frames in its
statistics. And some convolutions over frames see nonzero values beyond the end of a padded
utterance: a pos_conv with a batch norm or several layers, and the conformer's convolutions.
Training keeps fairseq's arithmetic, because the encoders were pretrained with it.

An export to ONNX traces this code with one example. Where the ordinary code looks at the values of
a batch, to save work, the traced code (``torch.jit.is_tracing()``) does what is right for any batch
and any length. Both give the same output, up to rounding.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model
from fairseq.modules import GradMultiply, SamePad
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

from fairseq_skd.encoders.convolutions import ConvLayer
from fairseq_skd.encoders.masking import SpanMask
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.wavlm import WavLMConfig, WavLMEncoder, WavLMModel
from fairseq_skd.files.progress import working


def frame_lengths(samples: Tensor, layers: Sequence[ConvLayer]) -> Tensor:
    """Count the frames of each utterance from the kernels and strides of the feature extractor.

    fairseq's HuBERT folds the padding mask of the samples instead, and counts one frame too many in
    padded batches.

    Args:
        samples: (B,) real samples, integer.
        layers: the convolutions.

    Returns:
        (B,) real frames, at least 1, because attention over no frame would give NaN.
    """
    for _, kernel, stride in layers:
        samples = (samples - kernel).div(stride, rounding_mode="floor") + 1
    return samples.clamp(min=1)


def extract_features(extractor: Any, source: Tensor, samples: Tensor, first_layer: ConvLayer, shortest: int) -> Tensor:
    """Run fairseq's feature extractor with group norm statistics over real samples only.

    Args:
        extractor: fairseq's ``ConvFeatureExtractionModel``, in evaluation mode.
        source: (B, samples).
        samples: (B,) real samples.
        first_layer: the extractor's first convolution.
        shortest: samples per frame of the whole extractor.

    Returns:
        (B, C, T) features. Padded frames are finite and have no meaning.
    """
    first, *others = extractor.conv_layers
    convolution, dropout, norm, activation = first
    if not isinstance(norm, nn.GroupNorm):
        return extractor(source)
    # Audio that is too short for one frame counts as one frame, with its padding: see
    # frame_lengths.
    samples = samples.clamp(min=shortest)
    x = dropout(convolution(source.unsqueeze(1)))  # (B, samples) -> (B, C, T of the first convolution)
    frames = frame_lengths(samples, [first_layer])
    if is_tracing():
        x = activation(_norm_by_mask(norm, x, frames))
    else:
        x = activation(_norm_by_utterance(norm, x, frames.tolist()))
    for block in others:
        x = block(x)
    return x


def _norm_by_utterance(norm: nn.Module, x: Tensor, frames: Sequence[int]) -> Tensor:
    """Normalise (B, C, T) over the real frames of each utterance, in place if gradients are off."""
    normed = torch.zeros_like(x) if torch.is_grad_enabled() else x
    for i, count in enumerate(frames):
        normed[i, :, :count] = norm(x[i : i + 1, :, :count])[0]
    return normed


def _norm_by_mask(norm: nn.GroupNorm, x: Tensor, frames: Tensor) -> Tensor:
    """Compute :func:`_norm_by_utterance` without a loop over utterances; ``frames`` is (B,).

    Each channel is a group of its own, as in all of fairseq's extractors.
    """
    x = normalize_real(x, frames.unsqueeze(1), norm.eps)
    return x * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1)


def normalize_real(x: Tensor, counts: Tensor, eps: float) -> Tensor:
    """Scale the real part of the last axis to zero mean and unit variance; padding becomes zero.

    Args:
        x: (..., T).
        counts: (...), how many of the T values are real; an axis may be 1.
        eps: is added to the variance.
    """
    counts = counts.unsqueeze(-1)
    real = (torch.arange(x.size(-1), device=x.device) < counts).to(x.dtype)
    counts = counts.clamp(min=1).to(x.dtype)
    x = (x - (x * real).sum(-1, keepdim=True) / counts) * real
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / counts + eps)


@contextlib.contextmanager
def zeros_on_padding(module: nn.Module, padding: Tensor | None) -> Iterator[None]:
    """Set padded frames to zero at the input of each convolution over frames in ``module``.

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


@dataclass(frozen=True)
class Regularisation:
    """Masks and LayerDrop in training.

    Attributes:
        time: spans of frames that become the mask embedding; None: no masks over frames.
        channel: spans of channels that become zero; None: no masks over channels.
        channel_first: whether channels are masked before frames.
        layerdrop: probability of skipping a layer.
    """

    time: SpanMask | None = None
    channel: SpanMask | None = None
    channel_first: bool = False
    layerdrop: float = 0.0


class TrunkOutput(NamedTuple):
    """Output of one forward pass. A tuple, because fairseq's NanDetector can inspect tuples.

    Attributes:
        taps: layer count -> hidden states after that many layers, (T, B, C), without the padding
            to a multiple that the attention uses.
        padding_mask: (B, T) bool, true on padded frames; None if every frame is real.
        frame_lengths: (B,) real frames.
    """

    taps: dict[int, Tensor]
    padding_mask: Tensor | None
    frame_lengths: Tensor


def build_fairseq_encoder(pretrained: PretrainedEncoder, layers: int, settings: dict[str, Any]) -> nn.Module:
    """Build a ``HubertModel``, ``Wav2Vec2Model`` or ``WavLMModel`` without pretraining modules.

    The weights are random. The pretraining task is not used, because it needs its data and its
    dictionary.

    Args:
        pretrained: kind and architecture.
        layers: number of transformer layers to build, at most the pretrained number.
        settings: dropouts and similar, under fairseq's names; keys that this fairseq does not know
            are ignored.
    """
    config = {"hubert": HubertConfig, "wav2vec2": Wav2Vec2Config, "wavlm": WavLMConfig}[pretrained.kind]()
    values = {**pretrained.architecture, **settings, "encoder_layers": layers}
    if pretrained.kind == "hubert":
        values["label_rate"] = -1.0
    else:
        values["quantize_targets"] = False
    known = set(config.__dataclass_fields__)
    cfg = OmegaConf.merge(OmegaConf.structured(config), {key: values[key] for key in values if key in known})
    if pretrained.kind == "hubert":
        task = OmegaConf.merge(
            OmegaConf.structured(HubertPretrainingConfig()), {"data": ".", "sample_rate": pretrained.sample_rate}
        )
        model = HubertModel(cfg, task, [None])
    else:
        model = WavLMModel(cfg) if pretrained.kind == "wavlm" else Wav2Vec2Model(cfg)
    model.remove_pretraining_modules()
    if values.get("conv_pos_batch_norm") and "conv_pos_batch_norm" not in known:  # not in fairseq 0.12.2
        model.encoder.pos_conv = _pos_conv_with_batch_norm(cfg)
    return model


def _pos_conv_with_batch_norm(cfg: Any) -> nn.Sequential:
    """Build the positional convolution with the modules and names of later fairseq builds."""
    width, kernel = cfg.encoder_embed_dim, cfg.conv_pos
    conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=cfg.conv_pos_groups)
    return nn.Sequential(nn.BatchNorm1d(width), conv, SamePad(kernel), nn.GELU())


class Trunk(nn.Module):
    """Feature extractor, masks and transformer layers, run by a loop of our own.

    fairseq's loop does not tell the layer of a result after LayerDrop skipped one, draws masks from
    generators that no checkpoint saves, and counts frames by folding the padding mask. Modules,
    parameters and arithmetic are fairseq's, with one exception: in evaluation, the hidden states of
    an utterance do not depend on padding (:mod:`fairseq_skd.encoders.trunk`).

    Args:
        pretrained: kind and architecture.
        layers: number of layers to keep.
        settings: dropouts and similar, for :func:`build_fairseq_encoder`.
        regularisation: masks and LayerDrop.
        feature_grad_mult: scale of the feature extractor's gradient; 0 freezes it.
    """

    def __init__(
        self,
        pretrained: PretrainedEncoder,
        layers: int,
        settings: dict[str, Any],
        regularisation: Regularisation,
        feature_grad_mult: float = 1.0,
    ) -> None:
        super().__init__()
        with working("building the encoder"):
            self.w2v_model: Any = build_fairseq_encoder(pretrained, layers, settings)
        self.proj: nn.Linear | None = None  # the teacher's head, under its name in fairseq's checkpoints
        self.conv_layers, self.shortest_audio = pretrained.conv_layers, pretrained.shortest_audio
        self.frame_grid = pretrained.frame_grid
        self.regularisation = regularisation
        self.feature_grad_mult = feature_grad_mult

    @property
    def final_norm(self) -> nn.LayerNorm | None:
        """The layer norm after the last layer of a pre-LN encoder; None for a post-LN encoder."""
        norm = self.w2v_model.encoder.layer_norm
        return norm if self.w2v_model.encoder.layer_norm_first and isinstance(norm, nn.LayerNorm) else None

    def drop_final_norm(self) -> None:
        """Remove the final norm, which no student uses."""
        self.w2v_model.encoder.layer_norm = nn.Identity()

    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor | None,
        taps: Collection[int],
        rng: np.random.Generator | None = None,
    ) -> TrunkOutput:
        """Run up to the deepest tap.

        Args:
            source: (B, samples).
            padding_mask: (B, samples) bool, true on padding, or None.
            taps: layer counts (1-based) whose output is returned.
            rng: generator of masks and LayerDrop; None: no masks, no LayerDrop.
        """
        samples = (~padding_mask.bool()).sum(dim=-1) if padding_mask is not None else None
        if samples is not None and not is_tracing() and bool((samples == source.size(1)).all()):
            samples = None
        features = self._extract(source, samples).transpose(1, 2)  # (B, C, T) -> (B, T, C)
        features = features[:, : features.size(1) - features.size(1) % self.frame_grid.multiple]
        lengths, padding = self._frames(features, samples)
        model = self.w2v_model
        features = model.layer_norm(features)
        if model.post_extract_proj is not None:
            features = model.post_extract_proj(features)
        x = model.dropout_input(features)
        if rng is not None:
            x = self._mask(x, lengths, rng)
        return TrunkOutput(self._layers(x, padding, frozenset(taps), rng), padding, lengths)

    def _extract(self, source: Tensor, samples: Tensor | None) -> Tensor:
        """Extract features: (B, samples) -> (B, C, T). ``samples`` (B,) are real; None: all are."""
        extractor = self.w2v_model.feature_extractor
        frozen = self.feature_grad_mult <= 0
        with torch.no_grad() if frozen else contextlib.nullcontext():
            if self.training or samples is None:
                features = extractor(source)
            else:
                features = extract_features(extractor, source, samples, self.conv_layers[0], self.shortest_audio)
        if not frozen and self.feature_grad_mult != 1.0:
            features = GradMultiply.apply(features, self.feature_grad_mult)
        return features

    def _frames(self, features: Tensor, samples: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Count real frames (B,) of ``features`` (B, T, C), and make their padding mask (B, T)."""
        batch, frames, _ = features.shape
        if samples is None:
            return torch.full((batch,), frames, dtype=torch.long, device=features.device), None
        lengths = frame_lengths(samples, self.conv_layers).clamp(max=frames)
        if not self.training:  # fairseq cuts only the longest utterance, and alone every utterance is the longest
            lengths = (lengths - lengths % self.frame_grid.multiple).clamp(min=1)
        padding = torch.arange(frames, device=features.device) >= lengths.unsqueeze(1)
        return lengths, padding if is_tracing() or bool(padding.any()) else None

    def _mask(self, x: Tensor, lengths: Tensor, rng: np.random.Generator) -> Tensor:
        """Apply SpecAugment to hidden features, (B, T, C)."""
        batch, frames, channels = x.shape
        settings = self.regularisation
        time = settings.time.draw(lengths.tolist(), frames, rng) if settings.time else None
        channel = settings.channel.draw([channels] * batch, channels, rng) if settings.channel else None
        if channel is not None and settings.channel_first:
            x = x.masked_fill(torch.from_numpy(channel).to(x.device).unsqueeze(1), 0)
        if time is not None:
            x = torch.where(torch.from_numpy(time).to(x.device).unsqueeze(2), self.w2v_model.mask_emb.type_as(x), x)
        if channel is not None and not settings.channel_first:
            x = x.masked_fill(torch.from_numpy(channel).to(x.device).unsqueeze(1), 0)
        return x

    def _layers(
        self, x: Tensor, padding: Tensor | None, taps: frozenset[int], rng: np.random.Generator | None
    ) -> dict[int, Tensor]:
        """Run the transformer: (B, T, C) -> tapped hidden states, layer count -> (T, B, C).

        If LayerDrop skips a tapped layer, its tap is the state before that layer.
        """
        encoder = self.w2v_model.encoder
        frames = x.size(1)
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(2), 0)
        with zeros_on_padding(encoder.pos_conv, None if self.training else padding):
            x = x + encoder.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        if not encoder.layer_norm_first:
            x = encoder.layer_norm(x)
        extra = -frames % encoder.required_seq_len_multiple
        if encoder.required_seq_len_multiple > 1 and (is_tracing() or extra):
            x = F.pad(x, (0, 0, 0, extra))
            if padding is None:
                padding = torch.arange(frames + extra, device=x.device).expand(x.size(0), -1) >= frames
            else:
                padding = F.pad(padding, (0, extra), value=True)
        x = F.dropout(x, p=encoder.dropout, training=self.training).transpose(0, 1)  # (B, T, C) -> (T, B, C)
        # WavLM's layers share one bias. It is computed here, because LayerDrop may skip layer 0,
        # which owns its table.
        shared = {"position_bias": encoder.position_bias(x.size(0))} if isinstance(encoder, WavLMEncoder) else {}
        outputs: dict[int, Tensor] = {}
        with zeros_on_padding(encoder.layers, None if self.training else padding):
            for count, layer in enumerate(encoder.layers, start=1):
                dropped = rng is not None and self.regularisation.layerdrop > rng.random()
                if not dropped:
                    x, _ = layer(x, self_attn_padding_mask=padding, need_weights=False, **shared)
                if count in taps:
                    outputs[count] = x[:frames]
                if count == max(taps):
                    break
        return outputs
