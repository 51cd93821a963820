"""Distillation from a separate teacher with fairseq's command line: saved files, and a resume."""

import hashlib

import pytest
import torch

from tests.baselines import BASELINES
from tests.builders import write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.end_to_end.training import SMALL, corpus, logged, parameters, train

SHORT = ("model.keep_layers=2", "optimization.max_update=6", "common.log_interval=2")
PRUNED, KD = ([*SMALL, *BASELINES[name], *SHORT] for name in ("pruning", "softmax_kl"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kd")
    write_pretrained(folder / "hubert.pt", seed=3)
    write_fine_tuned(folder / "teacher.pt")
    corpus(folder / "data")
    return folder


@pytest.fixture(scope="module")
def trained(work):
    places = [f"task.data={work / 'data'}", f"model.w2v_path={work / 'hubert.pt'}"]
    result = train(work / "kd", [*KD, *places, f"criterion.teacher_path={work / 'teacher.pt'}"])
    assert result.returncode == 0, result.stdout[-3000:]
    return places, result.stdout


@pytest.mark.slow
def test_terms_are_logged_and_the_teacher_is_not_saved(work, trained):
    places, output = trained
    inner = logged(output, "train_inner")[-1]
    assert inner["loss"] == pytest.approx(inner["ctc"] + inner["kd"], rel=0.02) and inner["kd"] > 0
    assert {"valid_wer", "valid_uer"} <= set(logged(output, "valid")[-1])
    plain = train(work / "pruned", [*PRUNED, *places])
    assert plain.returncode == 0, plain.stdout[-3000:]
    files = [work / run / "checkpoint_last.pt" for run in ("kd", "pruned")]
    with_teacher, without = (torch.load(file, weights_only=True) for file in files)
    assert with_teacher["model"].keys() == without["model"].keys()
    assert not any(".layers.2." in name for name in without["model"])
    assert with_teacher["criterion"] is None
    assert len(with_teacher["last_optimizer_state"]["state"]) == len(without["last_optimizer_state"]["state"])
    sizes = [file.stat().st_size for file in files]
    assert abs(sizes[0] - sizes[1]) < 4096
    assert (
        with_teacher["cfg"]["criterion"]["teacher_sha256"]
        == hashlib.sha256((work / "teacher.pt").read_bytes()).hexdigest()
    )


@pytest.mark.slow
def test_it_resumes_only_with_its_own_teacher(work, trained):
    places, _ = trained
    before = parameters(work / "kd" / "checkpoint_last.pt")
    longer = [*KD, *places, "optimization.max_update=8"]
    other = write_fine_tuned(work / "other.pt", seed=5)
    refused = train(work / "kd", [*longer, f"criterion.teacher_path={other}"])
    assert refused.returncode != 0
    assert f"criterion.teacher_path={other} is not the teacher that" in refused.stdout
    (work / "teacher.pt").rename(work / "moved.pt")
    resumed = train(work / "kd", [*longer, f"criterion.teacher_path={work / 'moved.pt'}", "criterion.kd_weight=2"])
    assert resumed.returncode == 0, resumed.stdout[-3000:]
    told = "with other settings: optimization.max_update=8 (it had 6), criterion.kd_weight=2.0 (it had 1.0)\n"
    assert told in resumed.stdout
    assert logged(resumed.stdout, "train")[-1]["train_num_updates"] == 8
    after = parameters(work / "kd" / "checkpoint_last.pt")
    assert any(not torch.equal(after[name], before[name]) for name in before)
