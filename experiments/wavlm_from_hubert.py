"""Write a WavLM that computes what a HuBERT computes.

It has the HuBERT's weights and a relative position bias of zero, in Microsoft's file format. Start
training from it if no pretrained WavLM is at hand.

python -m experiments.wavlm_from_hubert /models/hubert.pt /models/wavlm.pt
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.wavlm import GATE_UNITS
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.disk import replacing

ENCODER = ("feature_extractor.", "layer_norm.", "post_extract_proj.", "mask_emb", "encoder.")


def wavlm_from_hubert(hubert: PretrainedEncoder, num_buckets: int, max_distance: int) -> dict[str, Any]:
    """Build the dictionary of Microsoft's checkpoint: ``cfg`` and ``model``.

    Gates start half open: their weights are zero, their scale is one.

    Raises:
        UserError: the encoder is not a HuBERT.
    """
    if hubert.kind != "hubert":
        raise UserError(f"{hubert.source} is a {hubert.kind} model: give a HuBERT")
    cfg = {
        **hubert.architecture,
        "normalize": hubert.normalize,
        "relative_position_embedding": True,
        "num_buckets": num_buckets,
        "max_distance": max_distance,
        "gru_rel_pos": True,
    }
    weights = {name: tensor for name, tensor in hubert.weights.items() if name.startswith(ENCODER)}
    heads = cfg.setdefault("encoder_attention_heads", 12)
    size = cfg["encoder_embed_dim"] // heads
    for layer in range(hubert.depth):
        attention = f"encoder.layers.{layer}.self_attn"
        weights[f"{attention}.grep_linear.weight"] = torch.zeros(2 * GATE_UNITS, size)
        weights[f"{attention}.grep_linear.bias"] = torch.zeros(2 * GATE_UNITS)
        weights[f"{attention}.grep_a"] = torch.ones(1, heads, 1, 1)
    weights["encoder.layers.0.self_attn.relative_attention_bias.weight"] = torch.zeros(num_buckets, heads)
    return {"cfg": cfg, "model": weights}


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hubert", type=Path, help="pretrained HuBERT: fairseq checkpoint or Hugging Face folder")
    parser.add_argument("out", type=Path, help="checkpoint to write")
    parser.add_argument(
        "--num-buckets", type=int, default=320, help="buckets of the relative position bias (%(default)s)"
    )
    parser.add_argument(
        "--max-distance",
        type=int,
        default=800,
        help="distance in frames from which on all share a bucket (%(default)s)",
    )
    args = parser.parse_args()
    state = wavlm_from_hubert(load_pretrained(args.hubert), args.num_buckets, args.max_distance)
    with replacing(args.out) as beside, beside.open("wb") as file:
        torch.save(state, file)
    encoder = load_pretrained(args.out)
    print(f"{args.out}: a {encoder.kind} of {encoder.depth} layers")


if __name__ == "__main__":
    sys.exit(run_command("wavlm_from_hubert", main))
