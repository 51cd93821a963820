"""Distillation from a separate teacher: the loss against formulas, and the frozen teacher."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from fairseq_skd.criterions import KdCtcCriterion, SkdCtcCriterion
from fairseq_skd.criterions.config import KdCtcCriterionConfig, SkdCtcCriterionConfig
from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc
from tests.builders import CtcTask, batch, model_config, write_pretrained
from tests.decoding.checkpoints import edit_checkpoint, write_fine_tuned

SAMPLE = batch([1.2, 0.8, 1.0], ["GO ON", "AAA", "IT IS"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kd")


@pytest.fixture(scope="module")
def pretrained(folder):
    return write_pretrained(folder / "w2v.pt", "hubert", seed=3, extractor_mode="layer_norm")


@pytest.fixture(scope="module")
def teacher_path(folder):
    return write_fine_tuned(folder / "teacher.pt", extractor_mode="layer_norm")


def student(pretrained, **changes) -> SkdCtc:
    torch.manual_seed(1)
    return SkdCtc.build_model(
        model_config(pretrained, **{"student_layers": [], "keep_layers": 2, **changes}), CtcTask()
    )


def criterion(teacher_path, root=None, task=None, **changes) -> KdCtcCriterion:
    values = {"max_update": 101, "sentence_avg": True, "teacher_path": str(teacher_path), **changes}
    node = OmegaConf.merge(OmegaConf.structured(KdCtcCriterionConfig()), values)
    root = OmegaConf.create({**(root or {}), "criterion": node})
    return KdCtcCriterion(root.criterion, task or CtcTask())


def expected_terms(model, criterion, method, temperature, frames, plain):
    """Compute CTC and the distillation term in float64, one utterance at a time."""
    out = model(**SAMPLE["net_input"])
    guide = criterion.teacher.recognizer.model(**SAMPLE["net_input"])["encoder_out"]
    ctc = kd = 0.0
    for i, count in enumerate(out["frame_lengths"].tolist()):
        target = SAMPLE["target"][i, : SAMPLE["target_lengths"][i]]
        own, other = out["encoder_out"][:count, i].double(), guide[:count, i].double()
        ctc += F.ctc_loss(own.log_softmax(-1), target, (count,), (len(target),), reduction="sum")
        q, p = (own / temperature).softmax(-1), (other / temperature).softmax(-1)
        if method == "softmax_kl":
            term = (p * (p / q).log()).sum(-1) * temperature**2
        elif method == "softmax_l2":
            term = ((p - q) ** 2).sum(-1)
        else:
            best = other.argmax(-1)
            term = -own.softmax(-1)[torch.arange(count), best] * (best != 0)
        kept = other.argmax(-1) != 0 if frames == "nonblank" else torch.ones(count, dtype=torch.bool)
        kd += term[kept].sum() * (1 if plain else count / kept.sum())
    return float(ctc), float(kd)


@pytest.mark.parametrize(("frames", "plain"), [("all", False), ("nonblank", False), ("nonblank", True)])
@pytest.mark.parametrize(
    ("method", "temperature"), [("guide", 1), ("softmax_l2", 1), ("softmax_l2", 2), ("softmax_kl", 2)]
)
@pytest.mark.slow
def test_loss(pretrained, teacher_path, method, temperature, frames, plain):
    model = student(pretrained).train()
    chosen = {"method": method, "temperature": float(temperature), "frames": frames, "frames_plain_sum": plain}
    made = criterion(teacher_path, kd_weight=0.7, **chosen)
    loss, size, log = made(model, SAMPLE)
    with torch.no_grad():
        ctc, kd = expected_terms(model, made, method, temperature, frames, plain)
    assert kd != 0
    assert float(loss.detach()) == pytest.approx(ctc + 0.7 * kd, rel=1e-5)
    assert (float(log["ctc"]), float(log["kd"])) == (pytest.approx(ctc, rel=1e-5), pytest.approx(kd, rel=1e-4))
    assert size == 3 and {"blanks_teacher", "blanks_student"} <= set(log)


@pytest.mark.slow
def test_the_distillation_weight_grows(pretrained, teacher_path):
    model = student(pretrained).train()
    for updates, weight in ((0, 0.0), (30, 0.3), (60, 0.6), (99, 0.6)):
        model.set_num_updates(updates)
        loss, _, log = criterion(teacher_path, kd_weight=0.6, kd_warmup=0.6, max_update=100)(model, SAMPLE)
        assert float(loss.detach()) == pytest.approx(float(log["ctc"]) + weight * float(log["kd"]), rel=1e-5)


@pytest.mark.slow
def test_the_teacher_is_not_in_the_module_tree_and_never_changes(pretrained, teacher_path):
    model = student(pretrained, apply_mask=True, mask_prob=0.5).train()
    made = criterion(teacher_path)
    assert list(made.parameters()) == [] and list(made.modules()) == [made] and made.state_dict() == {}
    before = {name: value.clone() for name, value in made.teacher.recognizer.model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for update in range(10):
        made.train()  # as the trainer does
        model.set_num_updates(update)
        optimizer.zero_grad()
        made(model, SAMPLE)[0].backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in made.teacher.recognizer.model.state_dict().items())
    assert not made.teacher.recognizer.model.training


@pytest.mark.slow
def test_the_teacher_sees_no_masks(pretrained, teacher_path, tmp_path):
    """Masks and dropout of the teacher's own training are off, also in training mode."""
    random = {"apply_mask": True, "mask_prob": 0.5, "dropout": 0.3, "layerdrop": 0.5, "final_dropout": 0.3}
    trained = edit_checkpoint(teacher_path, tmp_path / "masked.pt", model=random)
    model = student(pretrained).train()
    plain = criterion(teacher_path).teacher(SAMPLE["net_input"], model)
    teacher = criterion(trained).train().teacher
    assert torch.equal(teacher(SAMPLE["net_input"], model), plain)
    assert not torch.equal(
        teacher.recognizer.model.train()(**SAMPLE["net_input"])["encoder_out"], plain
    )  # in training mode the settings do change the logits


def test_the_teacher_follows_the_model_to_another_precision(pretrained, teacher_path):
    model = student(pretrained).train().bfloat16()
    sample = {**SAMPLE, "net_input": {**SAMPLE["net_input"], "source": SAMPLE["net_input"]["source"].bfloat16()}}
    made = criterion(teacher_path)
    loss, _, log = made(model, sample)
    assert next(made.teacher.recognizer.model.parameters()).dtype == torch.bfloat16
    assert loss.dtype == log["kd"].dtype == torch.float32


@pytest.mark.slow
def test_the_teacher_follows_the_model_to_another_device(pretrained, teacher_path):
    """``meta`` is a device that every machine has; it computes only shapes."""
    model, made = student(pretrained).eval(), criterion(teacher_path)
    source = SAMPLE["net_input"]["source"]
    (frames, utterances, symbols) = made.teacher({"source": source}, model).shape
    logits = made.teacher({"source": source.to("meta")}, model.to("meta"))
    assert (logits.device.type, logits.shape) == ("meta", (frames, utterances, symbols))
    assert {parameter.device.type for parameter in made.teacher.recognizer.model.parameters()} == {"meta"}


@pytest.mark.slow
def test_a_batch_of_infeasible_utterances_is_zero(pretrained, teacher_path):
    model = student(pretrained).train()
    loss, _, log = criterion(teacher_path)(model, batch([0.1], ["TOO MANY LETTERS"]))
    loss.backward()
    assert float(loss.detach()) == 0 and float(log["kd"]) == 0 and float(log["ctc"]) == 0
    assert float(model.w2v_encoder.proj.weight.grad.abs().max()) == 0


@pytest.mark.slow
def test_a_resumed_run_needs_the_same_teacher(folder, pretrained, teacher_path):
    save_dir = folder / "run"
    save_dir.mkdir()
    root = {"checkpoint": {"save_dir": str(save_dir), "restore_file": "checkpoint_last.pt"}}
    made = criterion(teacher_path, root)
    saved = made.cfg._get_parent()
    assert saved.criterion.teacher_sha256 == hashlib.sha256(Path(teacher_path).read_bytes()).hexdigest()
    shutil.copy(teacher_path, save_dir / "checkpoint_last.pt")
    state = torch.load(save_dir / "checkpoint_last.pt", weights_only=True)
    state["cfg"]["criterion"] = {"_name": "kd_ctc", "teacher_sha256": saved.criterion.teacher_sha256}
    torch.save(state, save_dir / "checkpoint_last.pt")
    criterion(shutil.copy(teacher_path, folder / "same.pt"), root)  # same content, other name
    other = write_fine_tuned(folder / "other.pt", seed=9, extractor_mode="layer_norm")
    with pytest.raises(
        UserError, match=r"criterion.teacher_path=.*other.pt is not the teacher that .*checkpoint_last.pt"
    ):
        criterion(other, root)
    new = {"save_dir": str(folder / "new"), "restore_file": "checkpoint_last.pt"}
    criterion(other, {"checkpoint": new})
    with pytest.raises(UserError, match=r"is not the teacher that .*checkpoint_last.pt"):
        criterion(other, {"checkpoint": {**new, "continue_once": str(save_dir / "checkpoint_last.pt")}})


@pytest.mark.slow
def test_a_teacher_with_other_frames_symbols_or_scaling_is_refused(folder, pretrained, teacher_path):
    slower = write_pretrained(folder / "slow.pt", conv_feature_layers="[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 3")
    with pytest.raises(
        UserError, match=r"cannot be compared frame by frame, .*strides 5x2x2x2x2x2x2 .*strides 5x2x2x2x2x2x2x2"
    ):
        criterion(teacher_path)(student(slower), SAMPLE)
    task = CtcTask()
    task.target_dictionary.add_symbol("9")
    with pytest.raises(
        UserError,
        match=r"trained with another dictionary .*32 and 33 symbols; at index 32 the teacher has no symbol, the task "
        r"has '9'",
    ):
        criterion(teacher_path, task=task)
    bare = edit_checkpoint(teacher_path, folder / "bare.pt")
    state = torch.load(bare, weights_only=True)
    for name in ("w2v_encoder.proj.weight", "w2v_encoder.proj.bias"):
        state["model"][name] = torch.cat([state["model"][name], state["model"][name][:1]])
    torch.save(state, bare)
    with pytest.raises(UserError, match=r"bare.pt is damaged: its dictionary has 32 symbols, its CTC heads have 33$"):
        criterion(bare)
    torch.save({**state, "task_state": {}}, bare)
    with pytest.raises(
        UserError,
        match=r"another dictionary .*33 and 32 symbols; at index 32 the teacher has 'unnamed', the task has no symbol",
    ):
        criterion(bare)
    with pytest.raises(UserError, match="was trained with task.normalize=False, not True"):
        criterion(teacher_path, task=CtcTask(normalize=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "l1"}, "criterion.method=l1 is unknown: choose one of guide, softmax_l2, softmax_kl"),
        ({"teacher_path": "???"}, "criterion.teacher_path is not set"),
        ({"teacher_path": "/nowhere.pt"}, "checkpoint /nowhere.pt does not exist"),
        ({"method": "guide", "temperature": 2.0}, "criterion.temperature=2.0 does nothing with method=guide"),
        ({"frames": "some"}, "criterion.frames=some is not known"),
        ({"kd_weight": -0.1}, "criterion.kd_weight=-0.1 must be finite and at least 0"),
    ],
)
def test_bad_keys_are_refused(teacher_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        criterion(**{"teacher_path": teacher_path, **changes})


def test_a_pretrained_teacher_is_refused(pretrained):
    with pytest.raises(
        UserError, match=r"^criterion.teacher_path: checkpoint .*w2v.pt holds model hubert, but skd_ctc is needed"
    ):
        criterion(pretrained)


@pytest.mark.faults
@pytest.mark.parametrize("method", ["guide", "softmax_l2", "softmax_kl"])
@pytest.mark.slow
def test_a_teacher_that_has_diverged_is_refused(tmp_path, teacher_path, method):
    """X6: with method=guide a NaN gave no spike, and the run ended with status 0 and ``kd: 0``."""
    state = torch.load(teacher_path, weights_only=True)
    name = "w2v_encoder.w2v_model.encoder.layers.1.fc1.weight"
    state["model"][name][3, 5] = torch.nan
    torch.save(state, tmp_path / "nan.pt")
    sentence = rf"^criterion.teacher_path: checkpoint {tmp_path}/nan.pt: {name} holds NaN or Inf, the first of 1"
    with pytest.raises(UserError, match=sentence):
        criterion(tmp_path / "nan.pt", method=method)


# ---- layer pruning, and frame selections in self-distillation


def test_layer_pruning_keeps_the_first_layers(pretrained):
    whole, kept = student(pretrained, keep_layers=0).eval(), student(pretrained).eval()
    assert (whole.depth, kept.depth, kept.exits) == (4, 2, (2,))
    own = kept.w2v_encoder.w2v_model.state_dict()
    assert all(torch.equal(value, whole.w2v_encoder.w2v_model.state_dict()[name]) for name, value in own.items())
    tap = whole.w2v_encoder(**SAMPLE["net_input"], taps=[2]).taps[2]
    torch.testing.assert_close(kept.w2v_encoder(**SAMPLE["net_input"], taps=[2]).taps[2], tap, rtol=0, atol=0)
    assert kept.cfg.w2v_args.model.encoder_layers == 2  # the checkpoint rebuilds what was trained
    with pytest.raises(UserError, match="model.keep_layers=5 is out of range: this encoder has 4 layers, keep 1 to 4"):
        student(pretrained, keep_layers=5)


@pytest.mark.parametrize("plain", [False, True])
def test_self_distillation_on_chosen_frames(pretrained, plain):
    model = student(pretrained, student_layers=[2], keep_layers=0).eval()
    values = {"max_update": 101, "sentence_avg": True, "frames": "trim", "frames_plain_sum": plain}
    made = SkdCtcCriterion(OmegaConf.merge(OmegaConf.structured(SkdCtcCriterionConfig()), values), CtcTask())
    log = made(model, SAMPLE)[2]
    out = model(**SAMPLE["net_input"])
    expected = 0.0
    for i, count in enumerate(out["frame_lengths"].tolist()):
        teacher, own = (out["exit_logits"][layer][:count, i].double().log_softmax(-1) for layer in (4, 2))
        spoken = [frame for frame in range(count) if int(teacher[frame].argmax()) != 0]
        kept = range(spoken[0], spoken[-1] + 1)
        kl = (teacher.exp() * (teacher - own)).sum(-1)
        expected += sum(float(kl[frame]) for frame in kept) * (1 if plain else count / len(kept))
    assert float(log["skd"]) == pytest.approx(expected, rel=1e-5)
