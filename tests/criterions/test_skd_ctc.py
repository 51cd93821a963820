"""The criterion against formulas written out here, and against fairseq's own ``ctc``."""

import math

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.ctc import CtcCriterion, CtcCriterionConfig

from fairseq_skd.criterions import SkdCtcCriterion
from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc
from tests.builders import CtcTask, batch, model_config, write_pretrained
from tests.criterions.criterion import criterion, logged

SAMPLE = batch([1.2, 0.8, 1.0], ["GO ON", "AAA", "IT IS"])
LETTER_NORM = {"extractor_mode": "layer_norm"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("pretrained") / "w2v.pt", "hubert", **LETTER_NORM)


def build(checkpoint, **changes) -> SkdCtc:
    torch.manual_seed(1)
    return SkdCtc.build_model(model_config(checkpoint, **changes), CtcTask())


def reference_terms(model: SkdCtc, sample: dict, utterances: list[int], temperature: float = 1.0):
    """Compute CTC of each exit and KL of each student in float64, one utterance at a time."""
    out = model(**sample["net_input"])
    ctc = dict.fromkeys(model.exits, 0.0)
    kl = dict.fromkeys(model.student_layers, 0.0)
    for i in utterances:
        frames = int(out["frame_lengths"][i])
        target = sample["target"][i, : sample["target_lengths"][i]]
        logits = {layer: x[:frames, i].double() for layer, x in out["exit_logits"].items()}
        for layer, x in logits.items():
            ctc[layer] += F.ctc_loss(x.log_softmax(-1), target, (frames,), (len(target),), reduction="sum")
        for layer in kl:
            teacher = (logits[model.depth] / temperature).softmax(-1)
            student = (logits[layer] / temperature).softmax(-1)
            kl[layer] += (teacher * (teacher / student).log()).sum() * temperature**2
    return ctc, kl


@pytest.mark.parametrize("students", [[2], [3, 1]])
@pytest.mark.parametrize(
    ("changes", "updates", "alpha"),
    [
        ({}, 0, 0.3),
        ({}, 50, 0.5),
        ({}, 100, 0.7),
        ({"schedule": "linear"}, 25, 0.25),
        ({"schedule": "constant", "alpha": 0.1, "max_update": 0}, 9, 0.1),
        ({"kd_weight": 0.2, "temperature": 2.0}, 50, 0.5),
        ({"kd_weight": 0.0}, 50, 0.5),
        ({"kd_weight": 0.8, "kd_warmup": 0.8, "max_update": 100}, 20, 0.3),  # a quarter of 80 updates: 0.2
    ],
)
@pytest.mark.slow
def test_loss(checkpoint, students, changes, updates, alpha):
    model = build(checkpoint, student_layers=students).train()
    model.set_num_updates(updates)
    loss, sample_size, log = criterion(**changes)(model, SAMPLE)
    ctc, kl = reference_terms(model, SAMPLE, [0, 1, 2], changes.get("temperature", 1.0))
    weight = 0.2 if "kd_warmup" in changes else changes.get("kd_weight", 1.0)
    student = sum(ctc[layer] + weight * kl[layer] for layer in students) / len(students)
    expected = (1 - alpha) * ctc[4] + alpha * student
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert sample_size == 3
    assert float(log["ctc_teacher"]) == pytest.approx(float(ctc[4].detach()), rel=1e-5)
    assert float(log["skd"]) == pytest.approx(float(sum(kl.values()).detach()) / len(students), rel=1e-4)
    assert log["alpha_sum"] == pytest.approx(alpha)


@pytest.mark.parametrize("sentence_avg", [False, True])
@pytest.mark.slow
def test_without_students_the_loss_is_fairseqs_ctc(checkpoint, sentence_avg):
    model = build(checkpoint, student_layers=[]).eval()
    config = CtcCriterionConfig(zero_infinity=True, sentence_avg=sentence_avg)
    expected, expected_size, expected_log = CtcCriterion(config, CtcTask())(model, SAMPLE)
    loss, size, log = criterion(zero_infinity=True, sentence_avg=sentence_avg)(model, SAMPLE)
    torch.testing.assert_close(loss, expected)
    assert size == expected_size
    assert (log["unit_errors_4"], log["units"]) == (expected_log["c_errors"], expected_log["c_total"])
    assert (log["word_errors_4"], log["words"]) == (expected_log["w_errors"], expected_log["w_total"])
    assert "skd" not in log and "alpha_sum" not in log


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_terms_do_not_depend_on_padding(tmp_path, kind):
    model = build(write_pretrained(tmp_path / "w2v.pt", kind, **LETTER_NORM)).eval()
    together = batch([3.0, 1.0], ["GO ON", "IT"])
    logs = []
    for i, samples in enumerate((48000, 16000)):
        alone = {
            **together,
            "net_input": {key: value[i : i + 1, :samples] for key, value in together["net_input"].items()},
            "target": together["target"][i : i + 1],
            "ntokens": int(together["target_lengths"][i]),
        }
        logs.append(criterion()(model, alone)[2])
    both = criterion()(model, together)[2]
    for term in ("loss", "ctc_teacher", "ctc_student", "skd"):
        assert float(both[term]) == pytest.approx(sum(float(log[term]) for log in logs), rel=1e-5)
    for count in ("frames", "blanks_teacher", "blanks_student", "word_errors_4", "unit_errors_2"):
        assert int(both[count]) == sum(int(log[count]) for log in logs)


def gradients(model, stop_gradient: bool, kd_only: bool):
    model.zero_grad()
    changes = {"stop_gradient": stop_gradient, "schedule": "constant", "alpha": 1.0}
    parts = [criterion(**changes)(model, SAMPLE)[0]]
    if kd_only:  # alpha = 1 leaves CTC_student + SKD; subtract CTC_student
        parts.append(-criterion(**changes, kd_weight=0.0)(model, SAMPLE)[0])
    sum(parts).backward()
    top = model.w2v_encoder.w2v_model.encoder.layers[3].fc1.weight.grad
    return [0.0 if g is None else float(g.abs().max()) for g in (model.w2v_encoder.proj.weight.grad, top)]


def test_distillation_does_not_train_the_teacher(checkpoint):
    model = build(checkpoint).eval()
    assert gradients(model, stop_gradient=True, kd_only=True) == [0.0, 0.0]
    assert min(gradients(model, stop_gradient=False, kd_only=True)) > 1e-4


def test_infeasible_utterances_add_nothing_and_are_counted(checkpoint):
    sample = batch([1.2, 0.3, 1.0], ["GO ON", "TOO MANY LETTERS", "IT IS"])  # 14 frames, 17 units
    model = build(checkpoint).train()
    loss, size, log = criterion(schedule="constant")(model, sample)
    ctc, kl = reference_terms(model, sample, [0, 2])
    expected = 0.5 * ctc[4] + 0.5 * (ctc[2] + kl[2])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert int(log["infeasible"]) == 1 and size == 3
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_batch_of_infeasible_utterances_is_zero(checkpoint):
    model = build(checkpoint).train()
    sample = batch([0.1], ["TOO MANY LETTERS"])
    loss, _, log = criterion()(model, sample)
    loss.backward()
    assert float(loss.detach()) == 0 and float(log["skd"]) == 0 and int(log["infeasible"]) == 1
    heads = [model.w2v_encoder.proj.weight, model.student_heads["2"].proj.weight]
    assert [float(head.grad.abs().max()) for head in heads] == [0, 0]


def test_losses_are_float32_under_bfloat16(checkpoint):
    model = build(checkpoint).train().bfloat16()
    sample = {**SAMPLE, "net_input": {**SAMPLE["net_input"], "source": SAMPLE["net_input"]["source"].bfloat16()}}
    loss, _, log = criterion()(model, sample)
    assert loss.dtype == log["skd"].dtype == log["ctc_teacher"].dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"wer_kenlm_model": "lm.bin"}, "criterion.wer_kenlm_model=lm.bin needs a lexicon: set criterion.wer_lexicon"),
        ({"wer_kenlm_model": "lm.bin", "wer_lexicon": "l.txt"}, "lexicon .*/l.txt does not exist"),
        ({"wer_lm_weight": 1.0}, "criterion.wer_lm_weight=1.0 does nothing without criterion.wer_kenlm_model"),
        ({"wer_lexicon": "l.txt"}, "criterion.wer_lexicon=l.txt does nothing without criterion.wer_kenlm_model"),
        ({"wer_args": "('a',)"}, "criterion.wer_args=.* is refused, .* set criterion.wer_kenlm_model, wer_lexicon, "),
        ({"max_update": 0}, "set optimization.max_update"),
        ({"schedule": "cubic"}, "criterion.schedule=cubic is unknown"),
        ({"tau": 0.5}, "criterion.tau=0.5"),
        ({"kd_weight": -1.0}, "criterion.kd_weight=-1.0 must be finite and at least 0"),
        ({"kd_weight": float("inf")}, "criterion.kd_weight=inf must be finite and at least 0"),
        ({"temperature": 0.0}, "criterion.temperature=0.0 is out of range"),
        ({"temperature": float("inf")}, "criterion.temperature=inf is out of range"),
        ({"temperature": float("nan")}, "criterion.temperature=nan is out of range"),
    ],
)
def test_bad_keys_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        criterion(**changes)


def test_a_task_without_single_target_or_a_foreign_model_is_refused(checkpoint):
    sample = {key: value for key, value in SAMPLE.items() if key != "target"}
    with pytest.raises(UserError, match="task.single_target=true"):
        criterion()(build(checkpoint), sample)

    class Foreign(torch.nn.Module):
        def forward(self, **_):
            return {"encoder_out": torch.zeros(1)}

    with pytest.raises(UserError, match="needs the model skd_ctc: set model._name=skd_ctc"):
        criterion()(Foreign(), SAMPLE)


def test_logged_values(checkpoint):
    model = build(checkpoint, student_layers=[2, 1]).eval()
    other = batch([0.9, 0.7], ["NO", "YES"], seed=5)
    logs = [criterion()(model, sample)[2] for sample in (SAMPLE, other)]
    values = logged(logs)
    for name in ("loss", "ctc_teacher", "ctc_student", "skd"):
        expected = sum(float(log[name]) for log in logs) / 5 / math.log(2)
        assert values[name] == pytest.approx(expected, abs=2e-3)
    assert values["alpha"] == 0.3
    frames = sum(int(log["frames"]) for log in logs)
    blanks = sum(int(log["blanks_student"]) for log in logs)
    assert values["blank_student"] == pytest.approx(blanks / frames, abs=1e-4)
    words = sum(log["words"] for log in logs)
    for name, layer in (("wer", 4), ("student_wer", 2), ("wer_4", 4), ("wer_2", 2), ("wer_1", 1)):
        assert values[name] == pytest.approx(100 * sum(log[f"word_errors_{layer}"] for log in logs) / words, abs=2e-3)
    units = sum(log["units"] for log in logs)
    for name, layer in (("uer", 4), ("student_uer", 2)):
        assert values[name] == pytest.approx(100 * sum(log[f"unit_errors_{layer}"] for log in logs) / units, abs=2e-3)


def test_logging_outputs_can_be_summed(checkpoint):
    """fairseq may sum the outputs of all workers first; the metrics must not change."""
    model = build(checkpoint).eval()
    logs = [criterion()(model, sample)[2] for sample in (SAMPLE, batch([0.9, 0.7], ["NO", "YES"], seed=5))]
    assert SkdCtcCriterion.logging_outputs_can_be_summed()
    summed = {name: sum(log[name] for log in logs) for name in logs[0]}
    one, two = logged(logs), logged([summed])
    assert {name: float(value) for name, value in one.items()} == {name: float(value) for name, value in two.items()}


def test_one_exit_logs_no_student(checkpoint):
    values = logged([criterion()(build(checkpoint, student_layers=[]).eval(), SAMPLE)[2]])
    assert {"wer", "uer", "blank_teacher"} <= set(values)
    assert not {"alpha", "skd", "ctc_student", "student_wer", "blank_student", "wer_4"} & set(values)
