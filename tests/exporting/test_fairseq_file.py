"""An exported checkpoint gives the logits of its exit bit by bit, and trains on."""

import shutil
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from fairseq_skd.errors import UserError
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.training.starting import read_state
from tests.baselines import BASELINES
from tests.builders import CtcTask, letter_dictionary, model_config, write_pretrained
from tests.decoding.checkpoints import STUDENT
from tests.end_to_end.training import SMALL, corpus, parameters, train
from tests.exporting.exports import EXITS, KINDS, PRE_LN, STYLES, load, logits, noise, run, write

AUDIO = noise(0.3, 1.1)


@pytest.mark.slow
@pytest.mark.parametrize("exit_layer", EXITS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_exit(kind: str, style: str, exit_layer: int, tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt", kind, style)
    folder = run(checkpoint, exit_layer, "fairseq", tmp_path / "out")
    ours, theirs = load(checkpoint, exit_layer), load(folder)
    assert (theirs.exits, theirs.depth) == ((exit_layer,), exit_layer)
    assert theirs.parameters == ours.parameters
    assert theirs.symbols == ours.symbols and theirs.post_process == ours.post_process
    for wanted, found in zip(logits(ours, AUDIO), logits(theirs, AUDIO), strict=True):
        assert torch.equal(wanted, found)
    assert load(folder / "checkpoint.pt").sha256 == theirs.sha256


def test_an_exported_file_is_exported_again(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt")
    once = run(checkpoint, STUDENT, "fairseq", tmp_path / "once")
    twice = run(once, 0, "fairseq", tmp_path / "twice")
    for wanted, found in zip(logits(load(once), AUDIO), logits(load(twice), AUDIO), strict=True):
        assert torch.equal(wanted, found)


@pytest.mark.parametrize("first", [(), ("hf",), ("hf", "fairseq", "hf")], ids=lambda first: "-".join(first) or "once")
def test_fairseqs_own_loader(first: tuple[str, ...], tmp_path: Path) -> None:
    """What ``examples/speech_recognition/new/infer.py`` calls, also after other exports."""
    checkpoint = write(tmp_path / "checkpoint_best.pt")
    source = checkpoint
    for step, form in enumerate(first):
        source = run(source, STUDENT, form, tmp_path / f"step{step}")
    folder = run(source, STUDENT, "fairseq", tmp_path / "out")
    shutil.copy(folder / "dict.ltr.txt", tmp_path)
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(folder / "checkpoint.pt")], {"data": str(tmp_path)}, strict=True
    )
    rec = load(checkpoint, STUDENT)
    source, padding = rec.batch(AUDIO)
    with torch.no_grad():
        found = model.eval()(source=source, padding_mask=padding)["encoder_out"]
    assert torch.equal(found, rec(source, padding).logits[STUDENT])


def begin(path: Path, start: Path, **changes: object) -> SkdCtc:
    """A model of two layers that starts from a checkpoint, as ``finetune_from_model`` does."""
    cfg = model_config(path, keep_layers=STUDENT, student_layers=[], **changes)
    model = SkdCtc.build_model(cfg, CtcTask(normalize=changes.get("normalize", False)))
    state = read_state(start, model, letter_dictionary(), None)
    model.load_state_dict(state["model"], strict=True)
    return model.eval()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("source", ["exported", "skd"])
def test_a_pruned_training_starts_with_the_student(style: str, source: str, tmp_path: Path) -> None:
    """The file was refused: "has 4 layers but the model has 2"."""
    checkpoint = write(tmp_path / "checkpoint_best.pt", style=style)
    start = checkpoint
    if source == "exported":
        start = run(checkpoint, STUDENT, "fairseq", tmp_path / "out") / "checkpoint.pt"
    pretrained = write_pretrained(tmp_path / "w2v.pt", seed=7, **STYLES[style])
    model = begin(pretrained, start, normalize=style == "pre-LN")
    rec = load(checkpoint, STUDENT)
    batch, _ = rec.batch(AUDIO[:1])
    with torch.no_grad():
        assert torch.equal(model(batch)["encoder_out"], rec(batch).logits[STUDENT])


def test_without_a_student_of_that_depth_the_head_is_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt", style="pre-LN", students=(3,))
    pretrained = write_pretrained(tmp_path / "w2v.pt", seed=7, **PRE_LN)
    caplog.set_level("INFO", "fairseq_skd.models.state_dict")
    model = begin(pretrained, checkpoint, normalize=True)
    assert caplog.messages[1:] == ["the checkpoint has no student of 2 layers: the model's head starts untrained"]
    saved = parameters(checkpoint)
    found = model.state_dict()
    for name in ("w2v_encoder.w2v_model.encoder.layer_norm.weight", "w2v_encoder.w2v_model.encoder.layers.1.fc1.bias"):
        assert torch.equal(found[name], saved[name])
    assert not torch.equal(found["w2v_encoder.proj.weight"], saved["w2v_encoder.proj.weight"])
    assert not found["w2v_encoder.proj.bias"].any()


@pytest.mark.slow
def test_trainings_go_on(tmp_path: Path) -> None:
    """From the SKD checkpoint, from the exported file, and with the exported file as teacher."""
    checkpoint = write(tmp_path / "checkpoint_best.pt")
    folder = run(checkpoint, STUDENT, "fairseq", tmp_path / "out")
    pretrained = write_pretrained(tmp_path / "w2v.pt", seed=7)
    short = ("optimization.max_update=2", "optimization.lr=[1e-9]", f"model.w2v_path={pretrained}", "model.layerdrop=0")
    given = [*SMALL, f"task.data={corpus(tmp_path / 'data')}", *short]
    student = load(checkpoint, STUDENT).model.state_dict()
    pruned = ["model.keep_layers=2", "model.student_layers=[]", "checkpoint.best_checkpoint_metric=wer"]
    for name, start in (("skd", checkpoint), ("exported", folder / "checkpoint.pt")):
        done = train(tmp_path / name, [*given, *pruned, f"checkpoint.finetune_from_model={start}"])
        assert done.returncode == 0, done.stdout[-3000:]
        trained = parameters(tmp_path / name / "checkpoint_last.pt")
        torch.testing.assert_close(
            trained["w2v_encoder.proj.weight"], student[f"student_heads.{STUDENT}.proj.weight"], rtol=0, atol=1e-7
        )
        assert sum(name.endswith("fc1.bias") for name in trained) == STUDENT
    guided = [*BASELINES["softmax_kl"], "model.keep_layers=2", f"criterion.teacher_path={folder}"]
    done = train(tmp_path / "kd", [*given, *guided])
    assert done.returncode == 0, done.stdout[-3000:]
    saved = torch.load(tmp_path / "kd" / "checkpoint_last.pt", weights_only=True)["cfg"]["criterion"]
    assert saved["teacher_sha256"] == load(folder).sha256


def test_a_file_with_fewer_layers_than_the_model(tmp_path: Path) -> None:
    """The message named model.w2v_path, which was right."""
    folder = run(write(tmp_path / "checkpoint_best.pt"), STUDENT, "fairseq", tmp_path / "out")
    pretrained = write_pretrained(tmp_path / "w2v.pt", seed=7)
    model = SkdCtc.build_model(model_config(pretrained, student_layers=[]), CtcTask())
    with pytest.raises(UserError, match=r"has 2 layers but the model has 4: set model\.keep_layers=2, or omit"):
        read_state(folder / "checkpoint.pt", model, letter_dictionary(), None)
