import argparse
import dataclasses
import re

import pytest

from benchmarks import decode_exit, formats, long_audio, pretraining_loss, train_step
from benchmarks.base_encoder import Setting, noise_batch, recipe
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.transcripts import ErrorCount

SETTING = Setting(batch=2, seconds=2.0, threads=1, device="cpu", dtype="float32", student=6)


@pytest.mark.slow
def test_arms_differ_in_the_student_alone():
    ctc, skd = recipe(SETTING, ()), recipe(SETTING, (6,))
    assert (ctc.model.student_layers, skd.model.student_layers) == ([], [6])
    skd.model.student_layers = []
    assert ctc == skd
    assert skd.model.feature_grad_mult == 0
    assert skd.model.freeze_finetune_updates == 0


def test_batch_is_padded_and_feasible():
    batch = noise_batch(SETTING)
    samples = (~batch["net_input"]["padding_mask"]).sum(dim=1)
    assert samples.tolist() == [32000, 28800]
    assert batch["target_lengths"].tolist() == [28, 25]
    assert batch["net_input"]["source"][1, 28800:].abs().max() == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seconds": 0.1}, "--seconds 0.1 must be between 0.5 and 60"),
        ({"dtype": "float16"}, "--dtype float16 needs a GPU: give --device cuda"),
        ({"student": 12}, "--student 12 must be between 1 and 11: the full model has 12 layers"),
    ],
)
def test_settings_that_cannot_be_measured(change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(SETTING, **change).check()


def test_training_report():
    found = {
        "wall": {"CTC": [1.0, 4.0, 2.0], "SKD": [1.02, 4.08, 2.2]},
        "cpu": {"CTC": [1.0, 1.0, 1.0], "SKD": [1.0, 1.0, 1.0]},
        "memory": {"CTC": [100 * 2**20], "SKD": [110 * 2**20]},
        "terms": {"L_SKD": [0.01, 0.011, 0.012]},
    }
    figures, tables = train_step.report(found)
    assert figures["wall"]["ratio"]["median"] == pytest.approx(1.02)
    assert figures["terms"]["L_SKD"]["share"] == pytest.approx(0.011 / 2.2)
    time, memory = tables.splitlines()[2], tables.splitlines()[4]
    assert time.endswith("1.05: met |")
    assert memory.endswith("missed by 4.8 % |")
    assert tables.splitlines()[-1].split() == ["|", "all", "of", "them", "|", "11.00", "|", "0.500", "|"]


def test_decoding_report():
    kinds = {"cpu": [1.0], "model": [2**20], "peak": [2**20], "parameters": [10**6], "counted": [10**9]}
    found = {"12": {**kinds, "wall": [1.0, 2.0]}, "6": {**kinds, "wall": [0.8, 1.6]}}
    figures, tables = decode_exit.report(SETTING, found)
    assert figures["multiply_adds"]["12"] == 2 * sum(figures["parts"]["12"].values())
    assert figures["wall"]["ratio"]["median"] == pytest.approx(0.8)
    missed = 100 * (0.8 / (1.05 * figures["multiply_add_ratio"]) - 1)
    assert f"missed by {missed:.1f} %" in tables.splitlines()[2]


def test_pretraining_loss_report():
    found = {
        "wall": {"fairseq": [4.0, 6.0, 9.0], "one product": [0.01, 0.02, 0.03]},
        "cpu": {"fairseq": [4.0], "one product": [0.01]},
        "memory": {"fairseq": [300 * 2**20], "one product": [2**20]},
    }
    figures, table = pretraining_loss.report(found, {"loss": 0.0, "frames": 5e-7})
    assert figures["wall"]["ratio"]["median"] == pytest.approx(300)
    assert table.splitlines()[4].split("|")[-2].strip() == "300 [300, 300]"
    assert table.splitlines()[-1] == "frames: relative difference 5.0e-07"


@pytest.mark.slow
def test_pretraining_loss_is_measured_with_both_functions():
    args = argparse.Namespace(frames=20, labels=5, width=8, threads=1, device="cpu")
    ours, theirs = (pretraining_loss.Loss(args, arm) for arm in (pretraining_loss.OURS, pretraining_loss.THEIRS))
    assert ours.function is not theirs.function
    assert ours.step()["cpu"] > 0 and theirs.step()["cpu"] > 0
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)


def test_report_of_long_audio():
    figures = {"imported": 350.4, "loaded": 1100.0, "peak": 1400.0, "speed": 4.26}
    found = {
        "hubert": {"3": figures, "9": {**figures, "peak": 1449.0}},
        "wavlm": {"3": figures, "9": {**figures, "peak": 1451.0}},
        "other": {"3": {**figures, "peak": 1501.0}},
    }
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in long_audio.report(found).splitlines()[2:]]
    assert rows[0] == ["hubert", "3", "350", "1100", "1400", "4.3", "met"]
    assert [row[-1] for row in rows] == ["met", "met", "missed", "missed", "missed"]


def test_formats_report():
    arms = [(form, exit_) for form in ("torch float32", "ONNX", "ONNX int8") for exit_ in ("teacher", "student")]
    seconds = dict(zip(arms, [[4.0, 8.0], [2.0, 4.0], [3.0, 6.0], [1.0, 2.0], [2.0, 4.0], [0.8, 2.4]], strict=True))
    texts = {arm: ["A NO", "TEN"] for arm in arms} | {arms[-1]: ["A NO", "TE"]}
    counts = dict.fromkeys(arms, ErrorCount(1, 4))
    found = formats.Measured(
        10.0, dict.fromkeys(arms, 5_000_000), dict.fromkeys(arms, 2**20), {1: seconds}, counts, texts
    )
    figures, table = formats.report(found)
    assert figures["ONNX student"]["real_time_factors"] == {1: 0.15}
    assert figures["ONNX int8 student / torch float32 teacher"]["median"] == pytest.approx(0.25)  # of 0.2 and 0.3
    assert "ONNX int8 student / ONNX student: 1.00 [0.90, 1.10], at most 0.85: missed by 17.6 %" in table
    assert [line.split("|")[-2].strip() for line in table.splitlines() if re.match(r"\| .*int8", line)] == [
        "2 of 2",
        "1 of 2",
    ]
    assert figures["ONNX student"]["wer"] == 25
