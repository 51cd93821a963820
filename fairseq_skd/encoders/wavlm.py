"""WavLM: fairseq's wav2vec 2.0 classes with a gated relative position bias in every self-attention.

S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing",
IEEE JSTSP 16(6), 2022, arXiv 2110.13900. Parameters have the names of Microsoft's checkpoints,
which are fairseq's names plus three: ``grep_linear`` and ``grep_a`` (the gate) in each
``encoder.layers.<n>.self_attn``, and ``relative_attention_bias`` in the first.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.distributed import fsdp_wrap
from fairseq.models.wav2vec.wav2vec2 import (
    TransformerEncoder,
    TransformerSentenceEncoderLayer,
    Wav2Vec2Config,
    Wav2Vec2Model,
)
from fairseq.modules import MultiheadAttention
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

GATE_UNITS = 4  # units that are summed per gate


@dataclass
class WavLMConfig(Wav2Vec2Config):
    """fairseq's wav2vec 2.0 configuration plus WavLM's keys, under Microsoft's names."""

    num_buckets: int = 320
    max_distance: int = 800
    gru_rel_pos: bool = True


class WavLMModel(Wav2Vec2Model):
    """fairseq's model around a :class:`WavLMEncoder`."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(OmegaConf.merge(cfg, {"encoder_layers": 0}))  # its encoder is replaced below
        self.cfg = cfg
        self.encoder = WavLMEncoder(cfg)


class WavLMEncoder(TransformerEncoder):
    """fairseq's transformer, with one :meth:`position_bias` per forward pass for all layers."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.num_buckets, self.max_distance = cfg.num_buckets, cfg.max_distance
        table = nn.Embedding(cfg.num_buckets, cfg.encoder_attention_heads)
        nn.init.normal_(table.weight, std=0.02)
        self.layers[0].self_attn.relative_attention_bias = table  # its place in Microsoft's checkpoints

    def build_encoder_layer(self, args: Any, **_: Any) -> nn.Module:
        """Build a layer, wrapped as fairseq wraps its layers."""
        layer = fsdp_wrap(WavLMLayer(args))
        return checkpoint_wrapper(layer) if args.checkpoint_activations else layer

    def position_bias(self, frames: int) -> Tensor:
        """Compute the ungated bias (H, T, T) that head h adds to the score of query i and key j."""
        weight = self.layers[0].self_attn.relative_attention_bias.weight
        buckets = relative_buckets(frames, self.num_buckets, self.max_distance, weight.device)
        by_distance = F.embedding(buckets, weight).t()  # (H, 2 T - 1), distances -(T - 1) to T - 1
        if is_tracing():  # unfold would fix the number of frames; in torch an index takes 3 times as long
            frame = torch.arange(frames, device=weight.device)
            return by_distance[:, frame - frame.unsqueeze(1) + frames - 1]
        # A window of T distances slides over them: window i is the row of query T - 1 - i.
        return by_distance.unfold(1, frames, 1).flip(1)


class WavLMLayer(TransformerSentenceEncoderLayer):
    """fairseq's layer, post-LN or pre-LN, around a :class:`RelativeAttention`."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(
            embedding_dim=cfg.encoder_embed_dim,
            ffn_embedding_dim=cfg.encoder_ffn_embed_dim,
            num_attention_heads=cfg.encoder_attention_heads,
            dropout=cfg.dropout,
            attention_dropout=cfg.attention_dropout,
            activation_dropout=cfg.activation_dropout,
            activation_fn=cfg.activation_fn,
            layer_norm_first=cfg.layer_norm_first,
        )
        self.self_attn = RelativeAttention(
            cfg.encoder_embed_dim, cfg.encoder_attention_heads, cfg.attention_dropout, cfg.gru_rel_pos
        )

    def forward(
        self,
        x: Tensor,
        self_attn_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        *,
        position_bias: Tensor,
    ) -> tuple[Tensor, tuple[None, Tensor]]:
        """Run fairseq's forward, and hand the bias to the attention together with the padding mask.

        Args:
            x: (T, B, C).
            self_attn_padding_mask: (B, T) bool, true on padding, or None.
            need_weights: ignored; attention weights are never returned.
            position_bias: (H, T, T). It is an argument, so that it gets a gradient under
                ``checkpoint_activations``.
        """
        return super().forward(x, self_attn_padding_mask=(self_attn_padding_mask, position_bias))


class RelativeAttention(MultiheadAttention):
    """Self-attention with a relative position bias, gated per head by the query frame."""

    def __init__(self, width: int, heads: int, dropout: float, gated: bool) -> None:
        super().__init__(width, heads, dropout=dropout, self_attention=True)
        self.gated = gated
        if gated:
            self.grep_linear = nn.Linear(self.head_dim, 2 * GATE_UNITS)
            self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(
        self, query: Tensor, *, key_padding_mask: tuple[Tensor | None, Tensor], **_: Any
    ) -> tuple[Tensor, None]:
        """Attend from ``query`` (T, B, C) to itself.

        ``key_padding_mask`` holds the padding mask (B, T) or None, and the bias (H, T, T).
        """
        padding, bias = key_padding_mask
        mask = bias.unsqueeze(0)
        if self.gated:
            mask = self.gate(query) * mask  # (B, H, T, 1) * (1, H, T, T)
        if padding is not None:
            mask = mask.masked_fill(padding[:, None, None, :], -torch.inf)
        q, k, v = (self._heads(projection(query)) for projection in (self.q_proj, self.k_proj, self.v_proj))
        dropout = self.dropout_module.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype), dropout_p=dropout)
        return self.out_proj(x.permute(2, 0, 1, 3).flatten(2)), None  # (B, H, T, D) -> (T, B, C)

    def gate(self, query: Tensor) -> Tensor:
        """Compute the gate of the bias: (T, B, C) -> (B, H, T, 1).

        It is 1 + u + (1 - u) s r with update gate u, reset gate r and the head's scale s
        (``grep_a``). Microsoft's parameters give 1 - u instead of u.
        """
        units = self.grep_linear(self._heads(query)).unflatten(-1, (2, GATE_UNITS)).sum(-1)  # (B, H, T, 2)
        kept, reset = torch.sigmoid(units).chunk(2, dim=-1)
        return kept * (reset * self.grep_a - 1) + 2

    def _heads(self, x: Tensor) -> Tensor:
        """(T, B, C) -> (B, H, T, D)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)


def relative_buckets(frames: int, num_buckets: int, max_distance: int, device: torch.device | None = None) -> Tensor:
    """Compute the bucket of each distance from a query to a key.

    Half of the buckets are for keys before the query, half for keys after it. In each half, the
    first half of the buckets is one distance wide. The others grow logarithmically up to
    ``max_distance``, and larger distances share the last bucket. The computation is in float32, as
    in pretraining, so that distances at the edge of two buckets get the same bucket.

    Returns:
        (2 frames - 1,) buckets of the distances -(frames - 1) to frames - 1.
    """
    distance = torch.arange(1 - frames, frames, device=device)
    side = num_buckets // 2
    exact = side // 2
    far = distance.abs()
    growth = torch.log(far.float() / exact) / math.log(max_distance / exact) * (side - exact)
    logarithmic = (exact + growth.clamp(min=0)).long().clamp(max=side - 1)
    return torch.where(far < exact, far, logarithmic) + side * (distance > 0)
