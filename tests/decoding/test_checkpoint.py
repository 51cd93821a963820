"""Reading a fine-tuned checkpoint, the recognizer built from it, and untrusted checkpoints."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from fairseq_skd.decoding.config import DatasetSettings, TaskSettings
from fairseq_skd.decoding.evaluation_set import open_set
from fairseq_skd.encoders.convolutions import parse_conv_layers, receptive_field
from fairseq_skd.errors import UserError
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.recognizer import Recognizer, load
from tests.builders import letter_dictionary, write_pretrained
from tests.decoding.checkpoints import FULL, STUDENT, edit_checkpoint, write_fine_tuned


def post_process_of(trained: TrainedModel, corpus: Path, asked: str | None = None, **task: Any) -> str:
    """Return the post_process that decoding chooses for the subset ``test``."""
    settings = dataclasses.replace(TaskSettings(data=str(corpus)), **task)
    return open_set(settings, DatasetSettings(), asked, trained).post_process


def test_what_is_read_from_a_checkpoint(hubert: Path) -> None:
    trained = open_trained(hubert)
    assert (trained.depth, trained.students, trained.symbols) == (FULL, [STUDENT], len(letter_dictionary()))
    assert trained.dictionary is not None
    assert trained.dictionary.symbols == letter_dictionary().symbols


def test_receptive_field_of_the_usual_extractor() -> None:
    # wav2vec 2.0 and HuBERT: 400 samples per frame, 25 ms at 16 kHz
    assert receptive_field(parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")) == 400


def test_audio_shorter_than_the_receptive_field_has_no_frame(hubert: Path) -> None:
    recognizer = load(hubert, [FULL], "cpu")
    shortest = recognizer.waveforms.shortest
    source, padding_mask = recognizer.batch([torch.zeros(shortest)])
    assert recognizer(source, padding_mask).lengths.tolist() == [1]
    assert recognizer(source).logits[FULL].size(0) == 1
    with pytest.raises(RuntimeError):
        recognizer(source[:, 1:])
    sentence = rf"has {shortest - 1} samples, the model needs {shortest} for one frame"
    with pytest.raises(UserError, match=sentence):
        recognizer.batch([torch.zeros(shortest - 1)])


@pytest.mark.parametrize("exit_layer", [FULL, STUDENT])
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("layer_norm_first", [False, True])
@pytest.mark.slow
def test_parameters_are_counted_if_the_output_depends_on_them(
    tmp_path: Path, kind: str, layer_norm_first: bool, exit_layer: int
) -> None:
    students = (1, STUDENT)
    path = write_fine_tuned(tmp_path / "c.pt", kind, students, layer_norm_first=layer_norm_first)
    recognizer = load(path, [exit_layer], "cpu")
    model = recognizer.model.requires_grad_(True)
    model.w2v_encoder.feature_grad_mult = 1.0
    model(source=torch.randn(1, 4000), padding_mask=None)["encoder_out"].square().sum().backward()
    reached = sum(parameter.numel() for parameter in model.parameters() if parameter.grad is not None)
    assert recognizer.parameters == reached


def test_the_error_on_a_checkpoint_with_conditioned_layers_names_version_0_1_0(hubert: Path, tmp_path: Path) -> None:
    """Version 0.1.0 could feed student posteriors to later layers (model.condition_on_students)."""
    state = torch.load(hubert, weights_only=True)
    state["cfg"]["model"]["condition_on_students"] = False  # every checkpoint of 0.1.0 has the key
    torch.save(state, tmp_path / "without.pt")
    assert load(tmp_path / "without.pt", device="cpu").exits == (FULL, STUDENT)
    state["cfg"]["model"]["condition_on_students"] = True
    state["model"]["conditioners.2.weight"] = torch.zeros(32, 32)
    torch.save(state, tmp_path / "with.pt")
    with pytest.raises(
        UserError, match=r"with\.pt was trained with model\.condition_on_students=true: use fairseq_skd 0\.1\.0"
    ):
        open_trained(tmp_path / "with.pt")


def test_layers_above_the_exit_are_removed(hubert: Path) -> None:
    trained = open_trained(hubert)
    recognizer = Recognizer(trained, [STUDENT], "cpu")
    model = recognizer.model
    assert not model.training
    layers = {name.split(".")[4] for name, _ in model.named_parameters() if ".encoder.layers." in name}
    assert layers == {str(layer) for layer in range(STUDENT)}
    assert [name for name, _ in model.named_parameters() if ".proj." in name] == [
        f"student_heads.{STUDENT}.proj.weight",
        f"student_heads.{STUDENT}.proj.bias",
    ]
    assert trained.weights == {}
    assert not recognizer(torch.randn(1, 4000)).logits[STUDENT].requires_grad


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            ["ltr", "phn"],
            r"^task\.labels=\['ltr', 'phn'\] is not one file extension: set task\.labels, such as to ltr$",
        ),
        ([], r"^task\.labels=\[\] is not one file extension: set task\.labels, such as to ltr$"),
    ],
)
def test_labels_need_one_extension(hubert: Path, corpus: Path, labels: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        post_process_of(open_trained(hubert), corpus, labels=labels)


def test_foreign_checkpoints(hubert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds model hubert, but skd_ctc is needed"):
        open_trained(write_pretrained(tmp_path / "new.pt"))
    with pytest.raises(UserError, match=r"holds model wav2vec2, but skd_ctc is needed"):
        open_trained(write_pretrained(tmp_path / "old.pt", "wav2vec2", style="args"))
    with pytest.raises(UserError, match=r"nowhere\.pt does not exist"):
        open_trained(tmp_path / "nowhere.pt")
    damaged = edit_checkpoint(hubert, tmp_path / "args.pt", model={"w2v_args": None})
    with pytest.raises(UserError, match=r"is damaged: it lacks the encoder's configuration or a CTC head"):
        open_trained(damaged)


def test_weights_that_do_not_fit(hubert: Path, tmp_path: Path) -> None:
    state = torch.load(hubert, weights_only=True)
    del state["model"]["w2v_encoder.w2v_model.encoder.layers.0.fc1.weight"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"c\.pt: its weights do not fit its configuration: .*layers\.0\.fc1\.weight"):
        load(tmp_path / "c.pt")


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
        ("model", "blank_mode", "${oc.env:HOME}", "model.blank_mode='${oc.env:HOME}' cannot be resolved, only "),
        ("task", "label_rate", "${oc.env:HOME}", "task.label_rate='${oc.env:HOME}' cannot be resolved, only "),
        ("model", "normalize", True, "is damaged: its model.normalize=True, but its encoder has normalize=False"),
        ("model", "w2v_args", [1], "is damaged: it lacks the encoder's configuration or a CTC head"),
    ],
)
@pytest.mark.slow
def test_values_in_an_untrusted_checkpoint(hubert: Path, tmp_path: Path, section, key, value, words) -> None:
    """X11, X12, X2: tracebacks, a hang, or a leak of environment variables."""
    path = edit_checkpoint(hubert, tmp_path / "c.pt", **{section: {key: value}})
    with pytest.raises(UserError) as refused:
        open_trained(path)
    assert str(path) in str(refused.value)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.faults
@pytest.mark.slow
def test_the_task_of_an_untrusted_checkpoint(hubert: Path, corpus: Path, tmp_path: Path) -> None:
    """X12: the label extension cannot be a path; other keys of an unknown task have no effect."""
    task = {"_name": "evil", "label_rate": "evil", "labels": ["../ltr"], "invented": 1}
    path = edit_checkpoint(hubert, tmp_path / "c.pt", task=task)
    with pytest.raises(UserError, match=rf"^{path}: task\.labels=\['\.\./ltr'\] is not one file extension"):
        post_process_of(open_trained(path), corpus)
    assert post_process_of(open_trained(path), corpus, labels="ltr") == "letter"
    for labels in (None, [None], 7, [["ltr"]], "a/b"):
        edited = edit_checkpoint(hubert, tmp_path / "labels.pt", task={"labels": labels})
        with pytest.raises(UserError, match=r"labels\.pt(: task\.labels=.* one file ext| does not name its labels)"):
            post_process_of(open_trained(edited), corpus)


@pytest.mark.faults
@pytest.mark.parametrize("process", ["evil", ["letter"], {"a": 1}, 7])
@pytest.mark.slow
def test_the_post_process_of_an_untrusted_checkpoint(hubert: Path, corpus: Path, tmp_path: Path, process: Any) -> None:
    """X12."""
    state = torch.load(hubert, weights_only=True)
    state["cfg"]["criterion"] = {"_name": "skd_ctc", "post_process": process}
    torch.save(state, tmp_path / "c.pt")
    trained = open_trained(tmp_path / "c.pt")
    sentence = r"^common_eval\.post_process=null takes it from .*c\.pt, whose criterion\.post_process=.* is unknown: "
    with pytest.raises(UserError, match=sentence):
        post_process_of(trained, corpus)
    assert post_process_of(trained, corpus, "letter") == "letter"
    with pytest.raises(UserError, match=r"c\.pt: its criterion\.post_process=.* is unknown: choose one of letter, "):
        load(tmp_path / "c.pt", device="cpu").transcribe([torch.zeros(4000)])


@pytest.mark.faults
def test_fairseqs_programs_read_our_checkpoints_safely(
    hubert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X2: fairseq's programs give the configuration to omegaconf, which resolves interpolations."""
    monkeypatch.setenv("SECRET_TOKEN", "the-secret")
    hidden = {"a": "${oc.env:SECRET_TOKEN}", "b": "${task._name}", "c": ["x${oc.env:SECRET_TOKEN}"]}
    path = edit_checkpoint(hubert, tmp_path / "c.pt", common=hidden)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"decode_layer": 2, "data": "/here"})
    assert "the-secret" not in repr(OmegaConf.to_container(state["cfg"], resolve=True))
    assert state["cfg"].common == {"seed": 1, "tpu": False, "b": "hubert_pretraining", "c": []}
    assert (state["cfg"].model.decode_layer, state["cfg"].task.data) == (2, "/here")
    assert state["task_state"]["target_dictionary"] == letter_dictionary()
    assert state["optimizer_history"][-1]["num_updates"] == 0
