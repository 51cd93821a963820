import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_skd.decoding.checkpoint import build_task, count_parameters, task_config
from omegaconf import OmegaConf

from fairseq_skd.decoding.config import TaskSettings
from fairseq_skd.encoders.convolutions import parse_conv_layers, receptive_field
from fairseq_skd.errors import UserError
from fairseq_skd.models.trained import build_model, open_trained
from fairseq_skd.scoring.transcripts import choose_post_process
from tests.builders import letter_dictionary, write_pretrained
from tests.decoding.checkpoints import FULL, STUDENT, edit_checkpoint, write_fine_tuned


def settings(**changes: Any) -> TaskSettings:
    return dataclasses.replace(TaskSettings(data="/data"), **changes)


def test_what_is_read_of_a_checkpoint(hubert: Path) -> None:
    trained = open_trained(hubert)
    assert (trained.depth, trained.students, trained.symbols) == (FULL, [STUDENT], len(letter_dictionary()))
    assert trained.dictionary is not None
    assert trained.dictionary.symbols == letter_dictionary().symbols


def test_receptive_field_of_the_usual_extractor() -> None:
    # wav2vec 2.0 and HuBERT: 400 samples a frame, 25 ms at 16 kHz
    assert receptive_field(parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")) == 400


def test_a_shorter_audio_than_the_receptive_field_has_no_frame(hubert: Path) -> None:
    trained = open_trained(hubert)
    shortest = trained.shortest_audio
    task = build_task(trained, task_config(trained, settings()), letter_dictionary())
    model = build_model(trained, task, FULL)
    assert model(source=torch.zeros(1, shortest), padding_mask=None)["encoder_out"].size(0) == 1
    with pytest.raises(RuntimeError):
        model(source=torch.zeros(1, shortest - 1), padding_mask=None)


@pytest.mark.parametrize("exit_layer", [FULL, STUDENT])
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("layer_norm_first", [False, True])
def test_counted_parameters_are_those_that_the_output_depends_on(
    tmp_path: Path, kind: str, layer_norm_first: bool, exit_layer: int
) -> None:
    students = (1, STUDENT)
    trained = open_trained(write_fine_tuned(tmp_path / "c.pt", kind, students, layer_norm_first=layer_norm_first))
    task = build_task(trained, task_config(trained, settings()), letter_dictionary())
    model = build_model(trained, task, exit_layer)
    model.w2v_encoder.feature_grad_mult = 1.0
    model(source=torch.randn(1, 4000), padding_mask=None)["encoder_out"].square().sum().backward()
    reached = sum(parameter.numel() for parameter in model.parameters() if parameter.grad is not None)
    assert count_parameters(model, exit_layer, trained.depth) == reached


def test_a_checkpoint_with_conditioned_layers_names_its_reader(hubert: Path, tmp_path: Path) -> None:
    """Version 0.1.0 could train layers that see what a student says (model.condition_on_students)."""
    state = torch.load(hubert, weights_only=True)
    state["cfg"]["model"]["condition_on_students"] = False  # every checkpoint of 0.1.0 has the key
    torch.save(state, tmp_path / "without.pt")
    trained = open_trained(tmp_path / "without.pt")
    assert build_model(trained, build_task(trained, task_config(trained, settings()), letter_dictionary()), FULL)
    state["cfg"]["model"]["condition_on_students"] = True
    state["model"]["conditioners.2.weight"] = torch.zeros(32, 32)
    torch.save(state, tmp_path / "with.pt")
    with pytest.raises(
        UserError, match=r"with\.pt was trained with model\.condition_on_students=true: only version 0\.1\.0"
    ):
        open_trained(tmp_path / "with.pt")


def test_layers_above_the_exit_are_gone(hubert: Path) -> None:
    trained = open_trained(hubert)
    task = build_task(trained, task_config(trained, settings()), letter_dictionary())
    model = build_model(trained, task, STUDENT)
    assert not model.training
    layers = {name.split(".")[4] for name, _ in model.named_parameters() if ".encoder.layers." in name}
    assert layers == {str(layer) for layer in range(STUDENT)}
    assert [name for name, _ in model.named_parameters() if ".proj." in name] == [
        f"student_heads.{STUDENT}.proj.weight",
        f"student_heads.{STUDENT}.proj.bias",
    ]
    assert trained.weights == {}


def test_hubert_is_neither_cropped_nor_filtered(hubert: Path) -> None:
    config = task_config(open_trained(hubert), settings())
    assert (config["pad_audio"], config["random_crop"]) == (True, False)
    assert (config["max_sample_size"], config["min_sample_size"], config["max_keep_size"]) == (None, None, None)
    assert (config["data"], config["label_dir"], config["labels"]) == ("/data", None, ["ltr"])


def test_audio_finetuning_pads_by_itself(wav2vec2: Path) -> None:
    config = task_config(open_trained(wav2vec2), settings(labels=["phn"]))
    assert not {"pad_audio", "random_crop"} & set(config)
    assert (config["max_sample_size"], config["min_sample_size"]) == (None, None)
    assert (config["data"], config["labels"]) == ("/data", "phn")
    with pytest.raises(UserError, match=r"task\.label_dir is no key of audio_finetuning"):
        task_config(open_trained(wav2vec2), settings(label_dir="/labels"))


def test_keys_of_another_fairseq_are_left_out(hubert: Path, tmp_path: Path) -> None:
    newer = edit_checkpoint(hubert, tmp_path / "c.pt", task={"invented_later": 1})
    config = task_config(open_trained(newer), settings())
    assert "invented_later" not in config
    build_task(open_trained(newer), config, letter_dictionary())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ["ltr", "phn"]}, r"task\.labels=\['ltr', 'phn'\] has to name one extension"),
    ],
)
def test_a_task_that_differs_from_training(hubert: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        task_config(open_trained(hubert), settings(**changes))


def test_foreign_checkpoints(hubert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a checkpoint of model hubert, one of skd_ctc is needed"):
        open_trained(write_pretrained(tmp_path / "new.pt"))
    with pytest.raises(UserError, match=r"is a checkpoint of model wav2vec2, one of skd_ctc is needed"):
        open_trained(write_pretrained(tmp_path / "old.pt", "wav2vec2", style="args"))
    with pytest.raises(UserError, match=r"nowhere\.pt does not exist"):
        open_trained(tmp_path / "nowhere.pt")
    other_task = edit_checkpoint(hubert, tmp_path / "task.pt", task={"_name": "speech_to_text"})
    with pytest.raises(UserError, match=r"was trained with task speech_to_text, this command knows hubert_pretraining"):
        task_config(open_trained(other_task), settings())
    damaged = edit_checkpoint(hubert, tmp_path / "args.pt", model={"w2v_args": None})
    with pytest.raises(UserError, match=r"lacks the encoder's configuration or a CTC head: it is damaged"):
        open_trained(damaged)


def test_weights_that_do_not_fit(hubert: Path, tmp_path: Path) -> None:
    state = torch.load(hubert, weights_only=True)
    del state["model"]["w2v_encoder.w2v_model.encoder.layers.0.fc1.weight"]
    torch.save(state, tmp_path / "c.pt")
    trained = open_trained(tmp_path / "c.pt")
    task = build_task(trained, task_config(trained, settings()), letter_dictionary())
    with pytest.raises(UserError, match=r"the weights do not fit the configuration .*layers\.0\.fc1\.weight"):
        build_model(trained, task, FULL)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("model", "student_layers", "abc", "model.student_layers='abc' cannot be used: "),
        ("model", "student_layers", list(range(300_000)), "refused: its configuration has more than 50,000 values"),
        ("model", "student_layers", [1, 2, 3, 1, 2], "model.student_layers names 5 layers; students of this 4-layer"),
        ("model", "student_layers", [9], "there is no student of 9 layers"),
        ("model", "dropout", 2, "model.dropout=2.0 is out of range: it has to be at least 0 and below 1"),
        ("model", "mask_length", "x", "model.mask_length='x' cannot be used: "),
        ("model", "blank_mode", "evil", "model.blank_mode=evil is unknown: choose add or set"),
        ("model", "freeze_regex", "(", "model.freeze_regex=( is not a regular expression"),
        ("model", "blank_mode", "${oc.env:HOME}", "model.blank_mode='${oc.env:HOME}' is not followed in a checkpoint"),
        ("task", "label_rate", "${oc.env:HOME}", "task.label_rate='${oc.env:HOME}' is not followed in a checkpoint"),
        ("model", "normalize", True, "is damaged: its model.normalize=True is not normalize of its encoder, False"),
        ("model", "w2v_args", [1], "lacks the encoder's configuration or a CTC head: it is damaged"),
    ],
)
def test_values_of_a_strangers_checkpoint(hubert: Path, tmp_path: Path, section, key, value, words) -> None:
    """X11, X12, X2: tracebacks, a hang, or the environment."""
    path = edit_checkpoint(hubert, tmp_path / "c.pt", **{section: {key: value}})
    with pytest.raises(UserError) as refused:
        open_trained(path)
    assert str(path) in str(refused.value)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.faults
def test_a_strangers_task(hubert: Path, tmp_path: Path) -> None:
    """X12: values of the task that fairseq's classes do not take."""
    path = edit_checkpoint(hubert, tmp_path / "c.pt", task={"label_rate": "evil", "labels": ["../ltr"]})
    trained = open_trained(path)
    with pytest.raises(UserError, match=rf"^{path}: task\.labels=\['\.\./ltr'\] has to name one extension"):
        task_config(trained, settings())
    config = task_config(trained, settings(labels=["ltr"]))
    with pytest.raises(UserError, match=rf"^{path}: its task hubert_pretraining cannot be set up: .*'evil'"):
        build_task(trained, config, letter_dictionary())
    with pytest.raises(UserError, match=r"^the checkpoint: its criterion\.post_process='evil' is unknown: set"):
        choose_post_process(None, {"criterion": {"post_process": "evil"}}, letter_dictionary())
    choose_post_process("letter", {"criterion": {"post_process": "evil"}}, letter_dictionary())


@pytest.mark.faults
def test_what_fairseq_itself_reads_of_our_checkpoint(
    hubert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2: fairseq's programs hand the configuration to omegaconf."""
    monkeypatch.setenv("SECRET_TOKEN", "the-secret")
    hidden = {"a": "${oc.env:SECRET_TOKEN}", "b": "${task._name}", "c": ["x${oc.env:SECRET_TOKEN}"]}
    path = edit_checkpoint(hubert, tmp_path / "c.pt", common=hidden)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"decode_layer": 2, "data": "/here"})
    assert "the-secret" not in repr(OmegaConf.to_container(state["cfg"], resolve=True))
    assert state["cfg"].common == {"seed": 1, "tpu": False, "b": "hubert_pretraining", "c": []}
    assert (state["cfg"].model.decode_layer, state["cfg"].task.data) == (2, "/here")
    assert state["task_state"]["target_dictionary"] == letter_dictionary()
    assert state["optimizer_history"][-1]["num_updates"] == 0
