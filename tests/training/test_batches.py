"""fairseq's batches: every utterance fits in one, and a resume gives the same batches."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.training.splits import check_before_loading
from tests.builders import write_corpus
from tests.training.tasks import LAYERS, TASKS, make_task, root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data", {"train": [("A NO", 0.2), ("TEN", 0.1)], "valid": [("A", 0.2)]})


@pytest.mark.parametrize(
    ("split", "limits", "sentence"),
    [
        (
            "train",
            {"max_tokens": 3199},
            r"dataset\.max_tokens=3199 samples is too small for 1 of 2 utterances of .*train\.tsv: INSTEAD, "
            r"or set dataset\.max_tokens=3200, the length of the longest, .*line 2",
        ),
        (
            "valid",
            {"max_tokens_valid": 3199},
            r"dataset\.max_tokens_valid=3199 samples is too small for 1 of 1 utterances of .*valid\.tsv: INSTEAD, ",
        ),
    ],
)
@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
def test_an_utterance_longer_than_a_batch_is_refused(name, folder, split, limits, sentence):
    """F16: fairseq ends in an assertion, for validation after the first epoch."""
    hubert = "set task.max_keep_size=3199 to leave them out"
    sentence = sentence.replace("INSTEAD", hubert if "hubert" in name else "take them out of the manifest and labels")
    task = make_task(name, folder)
    check_before_loading(task, LAYERS, root(**{"max_tokens": 3200, "max_tokens_valid": None, **limits}))
    with pytest.raises(UserError, match=sentence):
        task.load_dataset(split)


def test_the_advice_of_the_message_works(folder):
    task = make_task("hubert_pretraining", folder, max_keep_size=3199)
    check_before_loading(task, LAYERS, root(max_tokens=3199))
    task.load_dataset("train")
    assert [task.dataset("train").size(index) for index in range(len(task.dataset("train")))] == [1600]


def batches_of(folder, name, seed, epoch, whole):
    """Batch twelve utterances of one length with fairseq, in a process that begins in ``epoch``."""
    task = make_task(name, folder)
    check_before_loading(task, LAYERS, whole)
    task.load_dataset("train")
    iterator = task.get_batch_iterator(task.dataset("train"), max_sentences=3, seed=seed, epoch=epoch)
    return [[int(index) for index in batch] for batch in iterator.frozen_batches]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_batches_do_not_depend_on_the_epoch_of_a_resume(name, tmp_path):
    folder = write_corpus(tmp_path / "data", {"train": [("A", 0.2)] * 12})
    first = batches_of(folder, name, 1, 1, root(1))
    assert sorted(index for batch in first for index in batch) == list(range(12))
    assert batches_of(folder, name, 1, 6, root(1)) == first
    assert batches_of(folder, name, 2, 1, root(2)) != first
    parts = [OmegaConf.create({"model": {}}), OmegaConf.create({"dataset": {"train_subset": "train"}}), None]
    for whole in parts:  # without a seed in the configuration: fairseq's order
        assert batches_of(folder, name, 1, 6, whole) != first
    for epoch in (1, 6):  # with new batches in each epoch: fairseq's order
        stock = batches_of(folder, name, 1, epoch, None)
        assert batches_of(folder, name, 1, epoch, root(1, update_epoch_batch_itr=True)) == stock
