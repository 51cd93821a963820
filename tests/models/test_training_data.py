"""Data that cannot be trained on, through fairseq's own tasks."""

from pathlib import Path

import pytest
import soundfile
from fairseq.tasks import setup_task
from fairseq.tasks.audio_finetuning import AudioFinetuningConfig
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.training_data import check_before_loading
from tests.builders import model_config, write_corpus, write_pretrained

SHORTEST = 400
TASKS = ("hubert_pretraining", "audio_finetuning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data", {"train": [("A NO", 0.2), ("TEN", 0.1)], "valid": [("A", 0.2)]})


def make_task(name: str, folder: Path, **changes):
    config = HubertPretrainingConfig() if name == "hubert_pretraining" else AudioFinetuningConfig()
    own = {"labels": ["ltr"], "fine_tuning": True, "single_target": True} if "hubert" in name else {"labels": "ltr"}
    merged = OmegaConf.merge(OmegaConf.structured(config), {"_name": name, "data": str(folder), **own, **changes})
    return setup_task(OmegaConf.create({"task": merged, "common": {"tpu": False}}).task)


@pytest.fixture(params=TASKS)
def task(request, folder):
    task = make_task(request.param, folder)
    check_before_loading(task, SHORTEST)
    return task


def test_sound_data_are_loaded_by_fairseq(task):
    for split, count in (("train", 2), ("valid", 1)):
        task.load_dataset(split, combine=False, epoch=1)
        assert len(task.dataset(split)) == count
        assert task.dataset(split)[0] is not None


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("train.tsv", "/somewhere\n", r"train\.tsv lists no utterance: after the audio root come lines"),
        ("train.tsv", None, r"dataset\.train_subset or dataset\.valid_subset=train: .* does not exist .there: valid."),
        ("train.tsv", "/somewhere\na.wav 3200\nb.wav\t1\n", r"train\.tsv line 2 is 'a\.wav 3200', it has to be"),
        ("train.ltr", "A |\n", r"train\.ltr has 1 lines, .*train\.tsv lists 2 utterances"),
        ("train.ltr", "A |\n\u00c9 |\n", r"train\.ltr line 2 has the symbol '\u00c9', which the dictionary lacks"),
        ("train.ltr", None, r"label file .*train\.ltr does not exist"),
    ],
)
def test_bad_files_get_a_sentence(task, folder, file, content, sentence):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(UserError, match=sentence):
        task.load_dataset("train")
    task.load_dataset("valid")


def test_audio_of_another_rate(task, folder):
    audio = folder / "audio" / "train1.wav"
    soundfile.write(audio, soundfile.read(audio)[0], 44100)
    with pytest.raises(
        UserError, match=r"1 of 2 audio files are sampled at 44100 Hz instead of the 16000 Hz .*line 3: .*train1\.wav"
    ):
        task.load_dataset("train")


@pytest.mark.parametrize("name", TASKS)
def test_the_file_is_named_that_no_check_saw(name, folder):
    """fairseq says which rate it met, not where."""
    task = make_task(name, folder)
    task.load_dataset("train")
    audio = folder.resolve() / "audio" / "train1.wav"
    soundfile.write(audio, soundfile.read(audio)[0], 44100)
    assert task.dataset("train")[0] is not None
    with pytest.raises(UserError, match=rf"audio file {audio} cannot be used: .*44100"):
        task.dataset("train")[1]
    audio.unlink()
    with pytest.raises(UserError, match=rf"audio file {audio} cannot be used: "):
        task.dataset("train")[1]


@pytest.mark.parametrize("name", TASKS)
def test_no_folder_and_no_dictionary(name, folder):
    task = make_task(name, folder)
    (folder / "dict.ltr.txt").unlink()
    with pytest.raises(UserError, match=r"dictionary .*/data/dict\.ltr\.txt does not exist: put it beside the labels"):
        check_before_loading(task, SHORTEST)
    folder.rename(folder.parent / "elsewhere")
    with pytest.raises(UserError, match=r"task\.data=.*/data is not a folder"):
        check_before_loading(task, SHORTEST)


def test_no_utterance_of_the_wanted_length(folder):
    task = make_task("hubert_pretraining", folder, min_sample_size=4000, max_keep_size=5000)
    check_before_loading(task, SHORTEST)
    with pytest.raises(
        UserError,
        match=r"no utterance between task.min_sample_size=4000 and task.max_keep_size=5000 samples: theirs are 1600 to",
    ):
        task.load_dataset("train")


def test_training_checks_and_decoding_does_not(folder, tmp_path):
    (folder / "train.tsv").write_text("/somewhere\n")
    task = make_task("hubert_pretraining", folder)
    config = model_config(write_pretrained(tmp_path / "w2v.pt", "hubert"))
    SkdCtc.build_model(config, task)
    with pytest.raises(UserError, match="lists no utterance"):
        task.load_dataset("train")
    again = make_task("hubert_pretraining", folder)
    SkdCtc.build_model(config, again)  # which holds the encoder's configuration now, as a checkpoint does
    assert "load_dataset" not in vars(again)
