"""Warnings and errors about the checkpoint that a training resumes from."""

import logging
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.training.resuming import check_resumed, other_settings, resumed_from, warn_of_other_settings

SAVED = {
    "common": {"seed": 1, "log_interval": 20},
    "task": {"data": "/data", "labels": ["ltr"]},
    "criterion": {"kd_weight": 0.1, "max_update": 1000, "teacher_path": "/a.pt", "gone": 1},
    "model": {"seed": 1, "student_layers": [6], "w2v_path": "/w2v.pt", "w2v_args": {"model": {}}, "data": "/data"},
    "optimization": {"max_update": 1000, "lr": [8e-4]},
    "lr_scheduler": None,
    "optimizer": {"_name": "adam", "weight_decay": 0},
    "checkpoint": {"save_interval": 1},
}


def root(folder: Path | None = None, **changes):
    """Build the configuration now: as saved, except ``section={key: value}``."""
    given = {section: {**(SAVED[section] or {}), **changes.get(section, {})} for section in SAVED}
    given["checkpoint"] |= {"save_dir": str(folder), "restore_file": "checkpoint_last.pt"} | changes.get(
        "checkpoint", {}
    )
    return OmegaConf.create(given)


def write(path: Path, cfg=SAVED) -> Path:
    torch.save({"cfg": cfg, "model": {"weight": torch.zeros(1)}}, path)
    return path


def test_nothing_changed():
    assert other_settings(root(), SAVED) == {}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"criterion": {"kd_weight": 0.3}}, {"criterion.kd_weight": (0.1, 0.3)}),
        ({"optimization": {"lr": [8e-4, 4e-4]}}, {"optimization.lr": ([8e-4], [8e-4, 4e-4])}),
        ({"model": {"student_layers": [4, 6]}}, {"model.student_layers": ([6], [4, 6])}),
        ({"optimizer": {"_name": "adamw"}}, {"optimizer._name": ("adam", "adamw")}),
        # a key that other keys copy
        ({"common": {"seed": 2}, "model": {"seed": 2}}, {"common.seed": (1, 2)}),
        (
            {"optimization": {"max_update": 8}, "criterion": {"max_update": "${optimization.max_update}"}},
            {"optimization.max_update": (1000, 8)},
        ),
        # device, logging and paths are not compared
        ({"common": {"log_interval": 1}, "checkpoint": {"save_interval": 5}}, {}),
        ({"model": {"w2v_path": "/moved.pt", "w2v_args": None}, "criterion": {"teacher_path": "/b.pt"}}, {}),
        # keys of another version of fairseq, and unset keys, are not compared
        ({"criterion": {"new": 1, "kd_weight": "???"}, "task": {"data": "${nowhere}"}}, {}),
    ],
)
def test_settings_that_differ(changes, told):
    assert other_settings(root(**changes), SAVED) == told


def test_a_configuration_without_sections():
    assert other_settings(root(), {}) == {}
    assert other_settings(OmegaConf.create({"criterion": "ctc"}), {**SAVED, "task": "hubert"}) == {}


def test_the_checkpoint_that_fairseq_resumes_from(tmp_path):
    last, other = tmp_path / "checkpoint_last.pt", write(tmp_path / "other.pt")
    assert resumed_from(root(tmp_path)) is None
    assert resumed_from(root(tmp_path, checkpoint={"continue_once": str(other)})) == other
    assert resumed_from(root(tmp_path, checkpoint={"restore_file": str(other)})) == other
    write(last)
    assert resumed_from(root(tmp_path)) == last
    assert resumed_from(root(tmp_path, checkpoint={"continue_once": str(other)})) == last
    assert resumed_from(OmegaConf.create({"model": {}})) is None


def test_a_resume_logs_other_settings(tmp_path, caplog):
    changed = {"criterion": {"kd_weight": 0.3}}
    with caplog.at_level(logging.WARNING):
        warn_of_other_settings(root(tmp_path, **changed))
        write(tmp_path / "checkpoint_last.pt")
        warn_of_other_settings(None)
        warn_of_other_settings(root(tmp_path))
        warn_of_other_settings(root(tmp_path, **changed, checkpoint={"reset_optimizer": True}))
        assert not caplog.records
        warn_of_other_settings(root(tmp_path, **changed))
    assert caplog.messages == [
        f"this training resumes from {tmp_path}/checkpoint_last.pt with other settings: "
        "criterion.kd_weight=0.3 (it had 0.1)"
    ]


def test_only_the_first_worker_warns(tmp_path, caplog):
    write(tmp_path / "checkpoint_last.pt")
    whole = root(tmp_path, criterion={"kd_weight": 0.3})
    for rank, count in ((1, 0), (0, 1)):
        whole["distributed_training"] = {"distributed_rank": rank, "distributed_world_size": 2}
        warn_of_other_settings(whole)
        assert len(caplog.records) == count


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint_last.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"checkpoint_last\.pt"):
        warn_of_other_settings(root(tmp_path))


def write_resumable(path: Path, updates: int, changed: int) -> Path:
    state = {"cfg": SAVED, "model": {"weight": torch.ones(1000)}, "optimizer_history": [{"num_updates": updates}]}
    torch.save({**state, "extra_state": {"train_iterator": {"epoch": 1}}}, path)
    os.utime(path, (changed, changed))
    return path


@pytest.mark.faults
def test_the_error_on_a_damaged_checkpoint_names_the_newest_intact_one(tmp_path):
    """X3: for a checkpoint_last.pt of 0 bytes, the error did not say what to do."""
    for number in (1, 2, 3):
        write_resumable(tmp_path / f"checkpoint_1_{number}.pt", number, changed=number)
    (tmp_path / "checkpoint_1_3.pt").write_bytes((tmp_path / "checkpoint_1_3.pt").read_bytes()[:-100])
    os.utime(write(tmp_path / "hubert.pt"), (4, 4))  # newer, but no training can resume from it
    last = write_resumable(tmp_path / "checkpoint_last.pt", 3, changed=5)
    check_resumed(root(tmp_path))
    for damaged in (b"", last.read_bytes()[:500]):
        last.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            check_resumed(root(tmp_path))
        assert str(caught.value) == (
            f"checkpoint {last} cannot be read, it is truncated or not a PyTorch file; the newest intact checkpoint "
            f"beside it is checkpoint_1_2.pt (2 updates): to resume from that, set "
            f"checkpoint.restore_file={tmp_path / 'checkpoint_1_2.pt'}"
        )
    check_resumed(root(tmp_path, checkpoint={"restore_file": str(tmp_path / "checkpoint_1_2.pt")}))
    for number in (1, 2):
        (tmp_path / f"checkpoint_1_{number}.pt").unlink()
    with pytest.raises(
        UserError, match=rf"; {tmp_path} holds no other checkpoint to resume from: to start again, move this one away"
    ):
        check_resumed(root(tmp_path))
