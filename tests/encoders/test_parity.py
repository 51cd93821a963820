"""Each layer, alone and in a padded batch, against the library that a starting point comes from.

transformers' group norm and fairseq's include padding, and so does a batch norm before the
positional convolution. Therefore the reference of such a model is its output for each utterance
alone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_skd.encoders.checkpoint import load_pretrained, load_weights
from fairseq_skd.encoders.trunk import Regularisation, Trunk
from tests.builders import architecture, batch, pretrained_model
from tests.encoders.peers import LARGE, SHAPE, peer, write_folder

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
        assert difference < 1e-5 * expected[layer][frames].abs().max(), f"layer {layer}"


def test_the_comparison_detects_each_part_of_a_wavlm(tmp_path: Path) -> None:
    """Each part, switched off, changes every layer by 1000 times the tolerance above."""
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


# ---- starting points in the wild

Reference = Callable[[Tensor], Sequence[Tensor]]  # (1, samples) -> (1, T, C) per layer
RATE_25_HZ = {"conv_dim": [24] * 8, "conv_kernel": [10, 3, 3, 3, 3, 2, 2, 2], "conv_stride": [5, *[2] * 7]}


def of_transformers(model: Any) -> Reference:
    """The last state of a pre-LN model is normalised; ours is compared after the final norm."""
    return lambda source: model(source, output_hidden_states=True).hidden_states[1:]


def of_fairseq(model: Any) -> Reference:
    from fairseq.models.hubert.hubert import HubertModel

    if isinstance(model, HubertModel):
        return lambda source: [model.extract_features(source, output_layer=layer)[0] for layer in range(1, 5)]
    return lambda source: [model.extract_features(source, None, layer=layer)["x"] for layer in range(4)]


def mhubert_25hz(path: Path, **changes: Any) -> Reference:
    """Frames of 40 ms, and a batch norm before the positional convolution."""
    model = peer("hubert", conv_pos_batch_norm=True, **RATE_25_HZ, **changes)
    norm = model.encoder.pos_conv_embed.batch_norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    model.save_pretrained(path)
    return of_transformers(model)


def contentvec_folder(path: Path) -> Reference:
    class HubertModelWithFinalProj(transformers.HubertModel):  # the class that its users define
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.final_proj = torch.nn.Linear(config.hidden_size, config.classifier_proj_size)

    model = HubertModelWithFinalProj(transformers.HubertConfig(**SHAPE, classifier_proj_size=8))
    model.load_state_dict(peer("hubert").state_dict(), strict=False)
    model.eval().save_pretrained(path)
    config = transformers.AutoConfig.from_pretrained(path)
    assert config.architectures == ["HubertModelWithFinalProj"]
    return of_transformers(model)


def s3prl(path: Path, kind: str, **changes: Any) -> Reference:
    """As its convert.py writes it: whole configurations, with their interpolations."""
    model = pretrained_model(kind, **changes)
    task = {"_name": f"{kind}_pretraining", "data": "/data", "normalize": False, "sample_rate": 16000}
    state = {
        "task_cfg": task,
        "model_cfg": {**OmegaConf.to_container(model_cfg(kind, **changes), enum_to_str=True), "_name": kind},
        "model_weight": model.state_dict(),
    }
    torch.save({**state, **({"dictionaries_symbols": [["<s>", "0"]]} if kind == "hubert" else {})}, path)
    return of_fairseq(model)


def model_cfg(kind: str, **changes: Any) -> Any:
    from fairseq.models.hubert.hubert import HubertConfig
    from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config

    config = HubertConfig if kind == "hubert" else Wav2Vec2Config
    return OmegaConf.merge(OmegaConf.structured(config()), architecture(**changes))


def contentvec_file(path: Path) -> Reference:
    """The layer above the others and its norms belong to the speaker's branch."""
    model = pretrained_model("hubert")
    weights = dict(model.state_dict())
    for name in [name for name in weights if name.startswith("encoder.layers.3.")]:
        weights[name.replace("layers.3", "layers.4")] = torch.zeros_like(weights[name])
    weights |= {"encoder.cond_layer_norm.weight_ln": torch.ones(3), "layer_proj.weight": torch.ones(3)}
    cfg = {"_name": "contentvec", **architecture(), "encoder_layers_1": 1, "ctr_layers": [-1]}
    task = {"_name": "contentvec_pretraining", "normalize": False, "crop": False, "spk2info": "???"}
    torch.save({"cfg": {"model": cfg, "task": task}, "model": weights}, path)
    return of_fairseq(model)


def microsoft(path: Path, left_out: Sequence[str]) -> Reference:
    """Keys that are left out of ``cfg`` have Microsoft's defaults."""
    model = peer("wavlm", num_buckets=320, max_bucket_distance=1280)
    attentions = [layer.attention for layer in model.encoder.layers]
    with torch.no_grad():
        if "gru_rel_pos" in left_out:  # transformers has no ungated model: a gate that is 1 everywhere
            for attention in attentions:
                attention.gru_rel_pos_const.zero_()
                attention.gru_rel_pos_linear.weight.zero_()
                attention.gru_rel_pos_linear.bias.fill_(100)
        if "relative_position_embedding" in left_out:
            attentions[0].rel_attn_embed.weight.zero_()
    write_microsoft(path, path.parent, model)
    state = torch.load(path, weights_only=True)
    for key in ("num_buckets", "max_distance", "conv_bias", "layer_norm_first", "normalize", "extractor_mode"):
        del state["cfg"][key]
    for key in left_out:
        del state["cfg"][key]
    parts = {"gru_rel_pos": ".grep_", "relative_position_embedding": ".relative_attention_bias"}
    for name in list(state["model"]):
        if any(parts[key] in name for key in left_out):
            del state["model"][name]
    torch.save(state, path)
    return of_transformers(model)


POINTS: dict[str, Callable[[Path], Reference]] = {
    "mhubert at 25 Hz": mhubert_25hz,
    "mhubert at 25 Hz, pre-LN": lambda path: mhubert_25hz(path, do_stable_layer_norm=True, conv_bias=True),
    "ContentVec folder": contentvec_folder,
    "ContentVec file": contentvec_file,
    "s3prl HuBERT": lambda path: s3prl(path, "hubert"),
    "s3prl wav2vec 2.0": lambda path: s3prl(path, "wav2vec2", layer_norm_first=True, extractor_mode="layer_norm"),
    "Microsoft's defaults": lambda path: microsoft(path, []),
    "WavLM without gates": lambda path: microsoft(path, ["gru_rel_pos"]),
    "WavLM without positions": lambda path: microsoft(path, ["gru_rel_pos", "relative_position_embedding"]),
}


@pytest.mark.parametrize("name", POINTS)
def test_every_layer_of_a_starting_point(tmp_path: Path, name: str) -> None:
    reference = POINTS[name](tmp_path / "point")
    trunk = build(tmp_path / "point")
    net_input = batch([2.0, 1.0, 1.3], ["A"] * 3)["net_input"]
    real = (~net_input["padding_mask"]).sum(-1).tolist()
    with torch.no_grad():
        padded = trunk(**net_input, taps=range(1, 5))
        for row, count in enumerate(real):
            source = net_input["source"][row : row + 1, :count]
            alone = trunk(source, None, taps=range(1, 5))
            assert padded.frame_lengths[row] == alone.frame_lengths[0]
            for layer, wanted in enumerate(reference(source), start=1):
                for out, index in ((alone, 0), (padded, row)):
                    found = out.taps[layer][: len(wanted[0]), index]
                    if layer == 4 and name.startswith("mhubert") and trunk.final_norm is not None:
                        found = trunk.final_norm(found)
                    assert found.shape == wanted[0].shape
                    assert (found - wanted[0]).abs().max() < 1e-5 * wanted.abs().max(), f"layer {layer}"
