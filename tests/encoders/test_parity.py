"""Each layer of a padded batch against transformers' model with the same weights.

transformers' group norm includes padding. Therefore base models are compared with its output for
each utterance alone.
"""

from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from fairseq_skd.encoders.checkpoint import load_pretrained, load_weights
from fairseq_skd.encoders.trunk import Regularisation, Trunk
from tests.builders import batch
from tests.encoders.peers import LARGE, write_folder

KINDS = ("hubert", "wav2vec2", "wavlm")


def build(path: Path) -> Trunk:
    pretrained = load_pretrained(path)
    trunk = Trunk(pretrained, pretrained.depth, {}, Regularisation())
    load_weights(trunk.w2v_model, pretrained.weights, pretrained.source)
    return trunk.eval()


def write_microsoft(path: Path, folder: Path, model: torch.nn.Module) -> Path:
    """Save a WavLM of transformers as Microsoft would, by a table that the product does not use."""
    parts = (
        ("feature_projection.layer_norm", "layer_norm"),
        ("feature_projection.projection", "post_extract_proj"),
        ("masked_spec_embed", "mask_emb"),
        ("pos_conv_embed.conv", "pos_conv.0"),
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
        ("feed_forward.intermediate_dense", "fc1"),
        ("feed_forward.output_dense", "fc2"),
        ("attention.gru_rel_pos_linear", "self_attn.grep_linear"),
        ("attention.gru_rel_pos_const", "self_attn.grep_a"),
        ("attention.rel_attn_embed", "self_attn.relative_attention_bias"),
        ("attention.", "self_attn."),
    )
    config, weights = model.config, {}
    large = config.feat_extract_norm == "layer"
    for name, tensor in model.state_dict().items():
        if name.startswith("feature_extractor"):
            name = name.replace(".conv.", ".0.").replace(".layer_norm.", ".2.1." if large else ".2.")
        elif ".layers." in name:
            name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
        for theirs, ours in parts:
            name = name.replace(theirs, ours)
        weights[name] = tensor
    convolutions = zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
    cfg = {
        "extractor_mode": "layer_norm" if large else "default",
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_ffn_embed_dim": config.intermediate_size,
        "encoder_attention_heads": config.num_attention_heads,
        "activation_fn": "gelu",
        "layer_norm_first": large,
        "conv_feature_layers": " + ".join(f"[({channels},{k},{s})]" for channels, k, s in convolutions),
        "conv_bias": config.conv_bias,
        "normalize": large,
        "mask_prob": 0.8,
        "conv_pos": config.num_conv_pos_embeddings,
        "conv_pos_groups": config.num_conv_pos_embedding_groups,
        "relative_position_embedding": True,
        "num_buckets": config.num_buckets,
        "max_distance": config.max_bucket_distance,
        "gru_rel_pos": True,
    }
    torch.save({"cfg": cfg, "model": weights}, path)
    return path


def reference_states(
    model: torch.nn.Module, source: torch.Tensor, real: torch.Tensor, together: bool
) -> list[torch.Tensor]:
    """Return (B, T, C) after the input and each layer, from the batch or from single utterances."""
    if together:
        return model(source, attention_mask=real.long(), output_hidden_states=True).hidden_states
    alone = [
        model(source[i : i + 1, : int(count)], output_hidden_states=True).hidden_states
        for i, count in enumerate(real.sum(-1))
    ]
    return [pad_sequence([state[0] for state in layer], batch_first=True) for layer in zip(*alone, strict=True)]


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("kind", [*KINDS, "microsoft"])
@pytest.mark.slow
def test_every_layer_equals_transformers(tmp_path: Path, kind: str, large: bool) -> None:
    reference = write_folder(tmp_path / "model", "wavlm" if kind == "microsoft" else kind, **(LARGE if large else {}))
    path = tmp_path / "model"
    if kind == "microsoft":
        path = write_microsoft(tmp_path / "WavLM.pt", path, reference)
    trunk = build(path)
    net_input = batch([2.0, 1.0, 0.05, 1.3], ["A"] * 4, normalize=large)["net_input"]
    real = ~net_input["padding_mask"]
    with torch.no_grad():
        expected = reference_states(reference, net_input["source"], real, together=large)
        out = trunk(**net_input, taps=range(1, 5))
    assert out.frame_lengths.tolist() == reference._get_feat_extract_output_lengths(real.sum(-1)).tolist()
    assert out.frame_lengths.tolist() == [99, 49, 2, 64]
    frames = ~out.padding_mask
    for layer in range(1, 5):
        found = out.taps[layer]
        if layer == 4 and trunk.final_norm is not None:  # transformers returns the last state normalised
            found = trunk.final_norm(found)
        difference = (found.transpose(0, 1) - expected[layer])[frames].abs().max()
        assert difference < 1e-4 * expected[layer][frames].abs().max(), f"layer {layer}"


def test_the_comparison_detects_each_part_of_a_wavlm(tmp_path: Path) -> None:
    """Each part, switched off, changes every layer by 100 times the tolerance above."""
    write_folder(tmp_path, "wavlm")
    net_input = batch([2.0, 1.0], ["A"] * 2)["net_input"]
    with torch.no_grad():
        expected = build(tmp_path)(**net_input, taps=range(1, 5))
        for name in ("relative_attention_bias.weight", "grep_a", "grep_linear.weight"):
            changed = build(tmp_path)
            for parameter in (value for key, value in changed.named_parameters() if key.endswith(name)):
                parameter.zero_()
            for layer, state in changed(**net_input, taps=range(1, 5)).taps.items():
                difference = (state - expected.taps[layer])[~expected.padding_mask.T].abs().max()
                assert difference > 1e-2 * expected.taps[layer].abs().max(), f"{name}, layer {layer}"
