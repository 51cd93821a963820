"""NaN and Inf in a training: the error names the update and the utterances."""

import logging
import math

import pytest
import torch
from fairseq.trainer import Trainer

from fairseq_skd.errors import UserError
from fairseq_skd.fairseq_fixes import audio_file
from tests.end_to_end.training import corpus
from tests.training.tasks import TASKS, make_task
from tests.training.trainers import batches, build_trainer


@pytest.fixture
def trainer(tmp_path):
    return build_trainer(tmp_path)


@pytest.mark.faults
@pytest.mark.slow
def test_gradients_that_are_not_finite(trainer, tmp_path):
    """Section 6: fairseq said "gradients are Nan/Inf" and named neither update nor file."""
    first, second, third, *_ = batches(trainer)
    trainer.train_step([first])
    with torch.no_grad():
        trainer.get_model().w2v_encoder.proj.weight[3, 3] = torch.inf
    with pytest.raises(UserError) as error:
        trainer.train_step([second, third])
    files = [str(tmp_path / "data" / "audio" / f"train{i}.wav") for batch in (second, third) for i in batch["id"]]
    assert str(error.value) == (
        f"update 2: gradients are Nan/Inf, in a batch of the utterances {', '.join(files)}: lower optimization.lr, or "
        f"leave these utterances out if others train"
    )


@pytest.mark.faults
@pytest.mark.slow
def test_a_large_batch_is_logged_in_full(trainer, caplog):
    everything = batches(trainer)
    with torch.no_grad():
        trainer.get_model().student_heads["2"].proj.bias[0] = torch.nan
    with caplog.at_level(logging.ERROR), pytest.raises(UserError, match="and 6 more, logged above"):
        trainer.train_step([*everything, *everything])
    assert len(set(caplog.messages[-1].removeprefix("utterances of the batch: ").split(", "))) == 7


@pytest.mark.slow
def test_fp16_skips_and_other_errors_do_not_change(trainer, monkeypatch):
    """An overflow skips the update; workers with different gradients get fairseq's own error."""

    def raises(error):
        def optimizer_step(*_, **__):
            raise error

        monkeypatch.setattr(trainer.task, "optimizer_step", optimizer_step)

    (batch, *_) = batches(trainer)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)  # called when an update is skipped
    raises(OverflowError("setting loss scale to: 64.0"))
    assert trainer.train_step([batch]) is None and trainer.get_num_updates() == 0
    raises(FloatingPointError("Minimum loss scale reached (0.0001). Your loss is probably exploding."))
    with pytest.raises(UserError, match=r"^update 1: Minimum loss scale reached \(0\.0001\), in a batch of the utt"):
        trainer.train_step([batch])
    raises(FloatingPointError(INCONSISTENT.format(0.5, 0.25)))
    with pytest.raises(FloatingPointError, match="inconsistent"):
        trainer.train_step([batch])


# As fairseq writes it in Trainer._check_grad_norms, which compares norms on GPUs only.
INCONSISTENT = (
    "Fatal error: gradients are inconsistent between workers. Try --ddp-backend=legacy_ddp. \n---\n"
    "grad_norm across the workers:\nrank   0 = {:.8f}\nrank   1 = {:.8f}\n\n---"
)


@pytest.mark.faults
@pytest.mark.parametrize("norm", [math.nan, math.inf])
@pytest.mark.slow
def test_nan_on_several_gpus(trainer, monkeypatch, norm):
    """Section 6: NaN in one worker becomes NaN in all, and fairseq blames the DDP backend."""

    def optimizer_step(*_, **__):
        monkeypatch.setattr(Trainer, "data_parallel_world_size", 2)
        monkeypatch.setattr(Trainer, "data_parallel_rank", 1)
        raise FloatingPointError(INCONSISTENT.format(norm, norm))

    (batch, *_) = batches(trainer)
    monkeypatch.setattr(trainer.task, "optimizer_step", optimizer_step)
    with pytest.raises(UserError, match=r"^update 1 on worker 1: gradients are Nan/Inf, in a batch of the utterances "):
        trainer.train_step([batch])


@pytest.mark.faults
def test_a_validation_loss_that_is_not_finite(trainer):
    """The last update can diverge: its checkpoint was saved, and the run ended with status 0."""
    batch, *_ = batches(trainer, "valid")
    trainer.valid_step(batch)
    with torch.no_grad():
        trainer.get_model().w2v_encoder.proj.weight[3, 3] = torch.nan
    with pytest.raises(UserError, match="^validation after update 0: the loss is nan, the training has diverged"):
        trainer.valid_step(batch)


def test_audio_files_are_named_in_both_tasks(tmp_path):
    data = corpus(tmp_path / "data")
    for name in TASKS:
        task = make_task(name, data)
        task.load_dataset("train")
        dataset = task.dataset("train")
        index = dataset[0]["id"]
        assert audio_file(dataset, index) == str(data / "audio" / "train0.wav")
    assert audio_file(object(), 3) == "number 3 of the data set"
