"""Audio that fairseq crops and utterances that it leaves out, against its own data sets."""

import logging
from pathlib import Path

import pytest
from fairseq.tasks.audio_finetuning import AudioFinetuningConfig

from fairseq_skd.errors import UserError
from fairseq_skd.training.splits import check_before_loading, check_settings
from tests.builders import write_corpus
from tests.training.tasks import LAYERS, TASKS, make_task, root

# fairseq 0.12.2 keeps a last batch of any size; it has no option subsample either.
DROPS = "subsample" in AudioFinetuningConfig.__dataclass_fields__
SECONDS = (0.3, 0.1, 0.2, 0.2, 0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    splits = {split: [("A", seconds) for seconds in SECONDS] for split in ("train", "valid")}
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data", splits)


def cropped(task, split="train"):
    """Count the utterances that lose audio when fairseq batches the whole split."""
    dataset = task.dataset(split)
    items = [dataset[index] for index in range(len(dataset))]
    real = {item["id"]: len(item["source"]) for item in items}
    batch = dataset.collater(items)
    padding, width = batch["net_input"]["padding_mask"], batch["net_input"]["source"].size(1)
    kept = (width - padding.sum(dim=1)).tolist()
    return sum(real[index] > length for index, length in zip(batch["id"].tolist(), kept, strict=True))


@pytest.mark.faults
@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("limit", [1600, 3200, 4000, 4799])
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_max_sample_size_crops_padded_batches(name, limit, split, folder):
    """F3: fairseq's collater crops to the smaller of the longest utterance and max_sample_size."""
    stock, task = (make_task(name, folder, max_sample_size=limit) for _ in range(2))
    stock.load_dataset(split)
    count = {1600: 4, 3200: 2, 4000: 1, 4799: 1}[limit]
    assert cropped(stock, split) == count
    check_before_loading(task, LAYERS, root())
    hubert = f"set task.max_keep_size={limit} to leave them out"
    instead = hubert if "hubert" in name else "take them out of the manifest and labels"
    with pytest.raises(
        UserError,
        match=rf"^task\.max_sample_size={limit} crops {count} of 5 utterances of .*{split}\.tsv, the first is .* line 2"
        rf".*, and keeps their transcripts whole: {instead}, or set task\.max_sample_size=null to train on whole utt",
    ):
        task.load_dataset(split)


@pytest.mark.parametrize("keys", [{"max_sample_size": 4800}, {"max_sample_size": 4000, "max_keep_size": 4000}])
def test_a_limit_that_crops_nothing_is_taken(keys, folder):
    task = make_task("hubert_pretraining", folder, random_crop=True, **keys)
    check_before_loading(task, LAYERS, root())
    task.load_dataset("train")
    assert cropped(task) == 0


@pytest.mark.faults
@pytest.mark.parametrize("random_crop", [True, False])
def test_batches_without_padding(random_crop, folder):
    """F3: fairseq's defaults, pad_audio=false and random_crop=true."""
    keys = {"pad_audio": False, "random_crop": random_crop}
    stock, task = (make_task("hubert_pretraining", folder, **keys) for _ in range(2))
    stock.load_dataset("train")
    assert cropped(stock) == 4
    check_before_loading(task, LAYERS, root())
    with pytest.raises(
        UserError,
        match=rf"^task\.pad_audio=false task\.random_crop={str(random_crop).lower()} crops each batch .* \(up to 4 of "
        r"5 utterances of .*train\.tsv would be cropped\): set task\.pad_audio=true task\.random_crop=false$",
    ):
        task.load_dataset("train")


def test_nothing_to_pad(folder, tmp_path):
    """Batches of one utterance, or of one length, are not cropped."""
    alone = make_task("hubert_pretraining", folder, pad_audio=False)
    check_before_loading(alone, LAYERS, root(batch_size=1))
    alone.load_dataset("train")
    equal = write_corpus(tmp_path / "data", {"train": [("A", 0.2)] * 3})
    task = make_task("hubert_pretraining", equal, pad_audio=False)
    check_before_loading(task, LAYERS, root())
    task.load_dataset("train")
    assert cropped(task) == 0


@pytest.mark.faults
@pytest.mark.skipif("subsample" not in AudioFinetuningConfig.__dataclass_fields__, reason="fairseq 0.12.3 or later")
def test_a_part_of_the_audio_with_other_transcripts(folder, tmp_path):
    """fairseq draws four of five utterances and asserts; four of four get wrong transcripts."""
    corpus = write_corpus(tmp_path / "data", {"train": [(text, 0.2) for text in ("A", "E", "I", "O")]})
    stock = make_task("audio_finetuning", corpus, subsample=0.9)
    stock.load_dataset("train")
    pairs = [(stock.dataset("train")[index]["id"], index) for index in range(4)]
    assert [audio for audio, _ in pairs] != [label for _, label in pairs]
    with pytest.raises(
        UserError, match=r"^task\.subsample=0\.9 draws a part of the audio but not its transcripts, .*: set it to 1"
    ):
        check_settings(make_task("audio_finetuning", corpus, subsample=0.9))


@pytest.mark.faults
def test_transcripts_that_are_cut(tmp_path):
    """With a label rate, fairseq reads transcripts as frame labels: 3 per second, 1 in 0.4 s."""
    corpus = write_corpus(tmp_path / "data", {"train": [("TEN", 0.4)]})
    task = make_task("hubert_pretraining", corpus, label_rate=3.0)
    task.load_dataset("train")
    assert task.dataset("train").collater([task.dataset("train")[0]])["target_lengths"].tolist() == [1]
    with pytest.raises(UserError, match=r"^task\.label_rate=3 is for pretraining, .*: set task\.label_rate=-1$"):
        check_settings(task)


def told(caplog, task, split, **keys):
    caplog.clear()
    caplog.set_level(logging.INFO, "fairseq_skd")
    task.load_dataset(split, **keys)
    records = [record for record in caplog.records if record.name.startswith("fairseq_skd")]
    return [(record.levelname, record.getMessage()) for record in records]


@pytest.mark.faults
def test_utterances_left_out_for_their_length_are_logged(folder, caplog):
    task = make_task("hubert_pretraining", folder, min_sample_size=2000, max_keep_size=4500)
    check_before_loading(task, LAYERS, root())
    for split, level in (("train", "INFO"), ("valid", "WARNING")):
        sentence = f"2 of 5 utterances of {folder}/{split}.tsv are left out by "
        sentence += "task.min_sample_size=2000 and task.max_keep_size=4500"
        assert told(caplog, task, split) == [(level, sentence)]
        assert len(task.dataset(split)) == 3


@pytest.mark.faults
@pytest.mark.parametrize(("disabled", "levels"), [(False, ["WARNING", "INFO"]), (True, ["INFO", "INFO"])])
def test_utterances_left_out_when_the_training_set_validates(disabled, levels, folder, caplog):
    """dataset.valid_subset=train, loaded twice: error rates silently covered only a part."""
    task = make_task("hubert_pretraining", folder, max_keep_size=4000)
    check_before_loading(task, LAYERS, root(valid_subset="train", disable_validation=disabled))
    assert [told(caplog, task, "train")[0][0] for _ in range(2)] == levels


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("steps", "workers", "seen"), [(0, 1, 2), (1, 1, 4), (0, 2, 4), (2, 1, 5), (None, 1, 5)])
def test_validation_that_stops_early(name, steps, workers, seen, folder, caplog):
    """Batches of two: each worker ends after its batch number max_valid_steps, counted from 0."""
    task = make_task(name, folder)
    whole = root(max_valid_steps=steps, batch_size_valid=2, max_tokens_valid=None)
    whole.distributed_training = {"distributed_world_size": workers}
    check_before_loading(task, LAYERS, whole)
    sentence = f"dataset.max_valid_steps={steps} leaves {5 - seen} of 5 utterances of {folder}/valid.tsv out of each "
    expected = [("WARNING", f"{sentence}validation: set it to null")] if seen < 5 else []
    assert told(caplog, task, "valid") == expected
    assert told(caplog, task, "train") == []


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("multiple", "seen"), [(1, 5), (2, 4), (3, 3), (8, 0)])
@pytest.mark.slow
def test_a_last_batch_that_is_dropped(name, multiple, seen, folder, caplog):
    """fairseq's default of 8 drops up to seven utterances of a validation set."""
    limits = {"max_tokens": 80_000, "max_tokens_valid": 80_000, "batch_size": None, "batch_size_valid": None}
    for split, what in (("train", "the training"), ("valid", "each validation")):
        task = make_task(name, folder)
        stock = make_task(name, folder)
        stock.load_dataset(split)
        dataset = stock.dataset(split)
        made = dataset.batch_by_size(
            dataset.ordered_indices(), max_tokens=80_000, required_batch_size_multiple=multiple
        )
        seen = seen if DROPS else 5
        assert sum(map(len, made)) == seen
        check_before_loading(task, LAYERS, root(required_batch_size_multiple=multiple, **limits))
        key = f"dataset.required_batch_size_multiple={multiple}"
        if seen == 0:
            with pytest.raises(
                UserError, match=rf"^{key} makes no batch of the 5 utterances .*{split}\.tsv: set it to 1"
            ):
                task.load_dataset(split)
            continue
        sentence = f"{key} leaves {5 - seen} of 5 utterances of {folder}/{split}.tsv out of {what}: set it to 1"
        assert told(caplog, task, split) == ([("WARNING", sentence)] if seen < 5 else [])


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
def test_valid_sets_that_are_not_combined(name, tmp_path, caplog):
    corpus = write_corpus(
        tmp_path / "data", {"valid": [("A", 0.2)], "valid1": [("A", 0.2)] * 2, "valid2": [("A", 0.2)]}
    )
    task = make_task(name, corpus)
    task.load_dataset("valid", combine=True, epoch=1)
    assert len(task.dataset("valid")) == 1
    left = f"3 utterances of {corpus}/valid1.tsv, {corpus}/valid2.tsv are left out of validation"
    both = "dataset.valid_subset='valid,valid1,valid2'"
    for keys, told in (
        (
            {"combine_valid_subsets": True},
            f"combine_valid_subsets=true combines nothing for audio, {left}: set it to false and {both}",
        ),
        ({"ignore_unused_valid_subsets": True}, f"ignore_unused_valid_subsets=true: {left}"),
    ):
        caplog.clear()
        check_before_loading(task, LAYERS, root(valid_subset="valid", **keys))
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            f"dataset.{told}"
        ]
    with pytest.raises(UserError) as error:
        check_before_loading(task, LAYERS, root(valid_subset="valid"))
    assert str(error.value) == (
        f"dataset.valid_subset=valid: {left}: set {both}, or dataset.ignore_unused_valid_subsets=true"
    )
    for keys in ({"valid_subset": "valid,valid2,valid1"}, {"valid_subset": "valid", "disable_validation": True}):
        check_before_loading(task, LAYERS, root(**keys))


@pytest.mark.faults
@pytest.mark.skipif("multi_corpus_keys" not in AudioFinetuningConfig.__dataclass_fields__, reason="fairseq 0.12.3")
def test_several_corpora(folder, caplog):
    """F3 for each manifest; errors name the audio file although fairseq adds a prefix."""
    keys = {"multi_corpus_keys": "a,b", "multi_corpus_sampling_weights": "0.5,0.5"}
    split, limits = "a:train,b:valid", root(train_subset="a:train,b:valid", max_valid_steps=0, max_tokens_valid=4800)
    task = make_task("audio_finetuning", folder, **keys, max_sample_size=4000)
    check_before_loading(task, LAYERS, limits)
    with pytest.raises(UserError, match=r"^task\.max_sample_size=4000 crops 1 of 5 utterances of .*train\.tsv"):
        task.load_dataset(split)
    task = make_task("audio_finetuning", folder, **keys)
    check_before_loading(task, LAYERS, limits)
    assert told(caplog, task, split) == []
    assert len(task.dataset(split)) == 10
    ((_, warning),) = told(caplog, task, "a:valid,b:valid")
    assert f"of 10 utterances of {folder}/valid.tsv, {folder}/valid.tsv out of each validation" in warning
    task.dataset(split).datasets["b"].dataset.sizes[3] = 3199
    with pytest.raises(UserError, match=r"^audio file .*/valid3\.wav cannot be used: it decodes to 3200 samples"):
        task.dataset(split)[8]
