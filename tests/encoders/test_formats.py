"""Files and names of other programs: what is read, and what is named in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.encoders.formats import from_microsoft
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.errors import UserError
from tests.builders import architecture, pretrained_model
from tests.encoders.checkpoints import MODEL, TAKEN, TASK, refusal, save

# ---- Microsoft's WavLM


def test_all_of_microsofts_defaults() -> None:
    """The values of WavLMConfig in Microsoft's WavLM.py."""
    cfg = from_microsoft({"model": {}, "task": {}, "relative_position_embedding": True}, "x")
    assert cfg is not None
    encoder = PretrainedEncoder.from_w2v_args(cfg)
    assert (encoder.kind, encoder.normalize, encoder.sample_rate) == ("wavlm", False, 16000)
    assert encoder.architecture == {
        "extractor_mode": "default",
        "encoder_layers": 12,
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
        "activation_fn": "gelu",
        "layer_norm_first": False,
        "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "conv_bias": False,
        "conv_pos": 128,
        "conv_pos_groups": 16,
        "num_buckets": 320,
        "max_distance": 1280,
        "gru_rel_pos": False,
    }


def test_a_wavlm_without_positions_is_a_plain_transformer() -> None:
    cfg = from_microsoft({"model": {}, "task": {}, "encoder_layers": 2, "gru_rel_pos": True}, "x")
    assert cfg is not None
    encoder = PretrainedEncoder.from_w2v_args(cfg)
    assert (encoder.kind, encoder.depth) == ("wav2vec2", 2)
    assert not {"num_buckets", "max_distance", "gru_rel_pos"} & encoder.architecture.keys()


# ---- s3prl


def s3prl(path: Path, **changes: Any) -> Path:
    state = {"task_cfg": TASK, "model_cfg": MODEL, "model_weight": {}, "dictionaries_symbols": [["0"]]}
    torch.save({**state, **changes}, path)
    return path


def test_a_file_of_s3prl_is_a_fairseq_file(tmp_path: Path) -> None:
    weights = pretrained_model("hubert").state_dict()
    encoder = load_pretrained(s3prl(tmp_path / "hubert.pt", model_weight=weights))
    assert (encoder.kind, encoder.normalize, encoder.architecture) == ("hubert", True, architecture())
    assert encoder.weights.keys() == weights.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_cfg": {**MODEL, "_name": "multires_hubert"}}, "is a multires_hubert model"),
        (
            {"model_cfg": {**MODEL, "_name": "data2vec_audio"}, "model_weight": {"_ema": {}}},
            "is a data2vec_audio model",
        ),
        ({"model_cfg": {"_name": "hubert_ctc"}}, "is a fine-tuned checkpoint (hubert_ctc)"),
        ({"model_cfg": None}, "does not say what model it is"),
        ({"model_weight": [1]}, "holds no 'model' dict: it is not a fairseq checkpoint"),
        ({"model_weight": {"a": 1}}, "its 'model' holds 'a', which is not the name of a tensor"),
    ],
)
def test_other_files_of_s3prl(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(s3prl(tmp_path / "x.pt", **changes))


# ---- formats that are named


def test_a_data2vec_checkpoint_is_named_in_spite_of_its_teacher(tmp_path: Path) -> None:
    cfg = {"model": {**MODEL, "_name": "data2vec_audio"}, "task": TASK}
    path = save(tmp_path / "d.pt", cfg=cfg, model={"_ema": {"a": torch.ones(1)}, "mask_emb": torch.ones(1)})
    assert refusal(path) == f"model.w2v_path={path} is a data2vec_audio model; {TAKEN}"


NO_CONFIGURATION = "and no configuration: give the fairseq checkpoint or the Hugging Face folder"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["feature_extractor.conv_layers.0.conv.weight", "encoder.transformer.layers.0.attention.k_proj.weight"],
            f"it holds the weights of a torchaudio model {NO_CONFIGURATION}",
        ),
        (
            ["wav2vec2.encoder.transformer.pos_conv_embed.conv.weight_g"],
            f"it holds the weights of a torchaudio model {NO_CONFIGURATION}",
        ),
        (
            ["model.feature_projection.projection.weight"],
            f"it holds the weights of a SpeechBrain model {NO_CONFIGURATION}",
        ),
        (
            ["hubert.feature_projection.projection.weight"],
            f"it holds the weights of a Hugging Face model without its config.json {NO_CONFIGURATION}",
        ),
        (["post_extract_proj.weight", "mask_emb"], f"it holds the weights of an encoder {NO_CONFIGURATION}"),
        (
            ["Distiller", "Config"],
            "it is s3prl's DistilHuBERT, which has no layer norm before its projection; " + TAKEN,
        ),
        (
            ["Downstream", "Featurizer"],
            "it is a downstream model of s3prl: give the pretrained encoder that it was trained on",
        ),
        (["state_dict", "pytorch-lightning_version"], f"it is a checkpoint of PyTorch Lightning; {TAKEN}"),
        (["a"], "it is not a fairseq checkpoint"),
    ],
)
def test_files_without_a_model_are_named(tmp_path: Path, names: list[str], sentence: str) -> None:
    path = tmp_path / "x.pt"
    torch.save(dict.fromkeys(names, torch.ones(1)), path)
    assert refusal(path) == f"model.w2v_path: checkpoint {path} holds no 'model' dict: {sentence}"


def test_a_folder_of_speechbrain(tmp_path: Path) -> None:
    (tmp_path / "hyperparams.yaml").touch()
    assert refusal(tmp_path) == (
        f"model.w2v_path={tmp_path} is a folder without config.json; it is a SpeechBrain folder: give the folder of "
        f"the Hugging Face model that its hyperparams.yaml names; {TAKEN}"
    )


# ---- names on a hub


@pytest.mark.parametrize("absolute", [False, True])  # fairseq_skd.train makes paths absolute
@pytest.mark.parametrize("name", ["facebook/hubert-base-ls960", "slprl/mhubert-base-25hz", "a/b.v1"])
def test_a_name_on_a_hub_says_how_to_get_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path, place = (str(tmp_path / name) if absolute else name), f"/models/{Path(name).name}"
    with pytest.raises(UserError) as refused:
        load_pretrained(path)
    assert str(refused.value) == (
        f"model.w2v_path={path} does not exist: a local file or folder is needed; if {name} is a model on the Hugging "
        f"Face hub, download it with hf download {name} --local-dir {place} (pip install huggingface_hub) and set "
        f"model.w2v_path={place}"
    )


@pytest.mark.parametrize("path", ["hubert", "models/hubert.pt", "there/hubert", "a/b/c", "/a/b/c", "../x/$(y)"])
def test_other_missing_paths_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^model\.w2v_path: checkpoint \S+ does not exist$"):
        load_pretrained(path)
