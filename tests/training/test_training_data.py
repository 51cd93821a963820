"""Data that cannot be trained on, through fairseq's own tasks."""

from pathlib import Path

import pytest
import soundfile
from fairseq.tasks.audio_finetuning import AudioFinetuningConfig
from omegaconf import OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.training.splits import check_before_loading, check_settings
from tests.builders import CtcTask, model_config, write_corpus, write_pretrained
from tests.training.tasks import LAYERS, TASKS, make_task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data", {"train": [("A NO", 0.2), ("TEN", 0.1)], "valid": [("A", 0.2)]})


@pytest.fixture(params=TASKS)
def task(request, folder):
    task = make_task(request.param, folder)
    check_before_loading(task, LAYERS)
    return task


def test_sound_data_are_loaded_by_fairseq(task):
    for split, count in (("train", 2), ("valid", 1)):
        task.load_dataset(split, combine=False, epoch=1)
        assert len(task.dataset(split)) == count
        assert task.dataset(split)[0] is not None


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("train.tsv", "/somewhere\n", r"train\.tsv lists no utterances: write lines 'path<TAB>samples' after"),
        ("train.tsv", None, r"^split train of dataset\.train_subset or .* does not exist; the folder has valid"),
        ("train.tsv", "/somewhere\na.wav 3200\nb.wav\t1\n", r"train\.tsv line 2 is 'a\.wav 3200': write 'path"),
        ("train.ltr", "A |\n", r"train\.ltr has 1 lines, .*train\.tsv lists 2 utterances"),
        ("train.ltr", "A |\n\u00c9 |\n", r"train\.ltr line 2 has the symbol '\u00c9', which is not in the dictionary"),
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
def test_no_folder_and_no_dictionary(name, folder):
    task = make_task(name, folder)
    (folder / "dict.ltr.txt").unlink()
    with pytest.raises(UserError, match=r"dictionary .*/data/dict\.ltr\.txt does not exist: put it beside the labels"):
        check_settings(task)
    folder.rename(folder.parent / "elsewhere")
    with pytest.raises(UserError, match=r"task\.data=.*/data is not a folder"):
        check_settings(task)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "???"}, r"task\.data is not set"),
        ({"data": "here"}, r"task\.data=here is not a folder in /.*, where Hydra runs this: give an absolute path"),
        ({"labels": []}, r"task\.labels is not set"),
        ({"fine_tuning": False}, r"task\.fine_tuning=false is for pretraining: set task\.fine_tuning=true"),
    ],
)
def test_settings_of_the_task(folder, changes, sentence):
    task = make_task("hubert_pretraining", folder, fine_tuning=False)  # reads no dictionary yet
    cfg = OmegaConf.create({**task.cfg, "fine_tuning": True, **changes})
    task.cfg = cfg
    with pytest.raises(UserError, match=sentence):
        check_settings(task)


@pytest.mark.parametrize("name", TASKS)
def test_utterances_that_the_task_drops_are_not_checked(name, folder):
    """fairseq leaves out utterances below min_sample_size and never reads their audio or labels."""
    task = make_task(name, folder, min_sample_size=2000)
    check_before_loading(task, LAYERS)
    (folder / "audio" / "train1.wav").unlink()
    (folder / "train.ltr").write_text("A |\n\u00c9 |\n")
    task.load_dataset("train")
    assert len(task.dataset("train")) == 1


def test_audio_shorter_than_a_frame(task, folder):
    """Alone in a batch, it ends a training in an error of a convolution."""
    audio = folder / "audio" / "train1.wav"
    soundfile.write(audio, soundfile.read(audio)[0][:100], 16000)
    with pytest.raises(UserError, match=r"1 of 2 audio files are shorter than 400 samples, one frame .* line 3: "):
        task.load_dataset("train")
    manifest = folder / "train.tsv"
    manifest.write_text(manifest.read_text().replace("\t1600", "\t100"))
    with pytest.raises(
        UserError,
        match=r"1 of 2 utterances of .*/train\.tsv are shorter than one frame of the model, 400 samples, .*line 3: "
        r".*/train1\.wav: set task\.min_sample_size=400$",
    ):
        task.load_dataset("train")
    task.cfg.min_sample_size = 400
    task.load_dataset("train")
    assert len(task.dataset("train")) == 1


def test_windows_line_ends(folder):
    """The HuBERT task reads labels by bytes, the other task by lines."""
    (folder / "train.ltr").write_bytes(b"A |\r\nN O |\r\n")
    task = make_task("audio_finetuning", folder)
    check_before_loading(task, LAYERS)
    task.load_dataset("train")
    assert task.dataset("train")[1]["label"].tolist() == [10, 8, 4]
    task = make_task("hubert_pretraining", folder)
    check_before_loading(task, LAYERS)
    with pytest.raises(UserError, match=r"train\.ltr line 1 holds a carriage return"):
        task.load_dataset("train")


@pytest.mark.skipif(
    "target_dictionary" not in AudioFinetuningConfig.__dataclass_fields__, reason="fairseq 0.12.3 or later"
)
def test_a_dictionary_in_its_own_folder(folder):
    (folder / "elsewhere").mkdir()
    (folder / "dict.ltr.txt").rename(folder / "elsewhere" / "dict.ltr.txt")
    task = make_task("audio_finetuning", folder, target_dictionary=str(folder / "elsewhere"))
    check_before_loading(task, LAYERS)
    task.load_dataset("train")
    assert len(task.dataset("train")) == 2


def test_other_tasks_are_not_touched(folder):
    task = CtcTask()
    check_settings(task)
    check_before_loading(task, LAYERS)
    assert not hasattr(task, "load_dataset")


def test_no_utterance_of_the_wanted_length(folder):
    task = make_task("hubert_pretraining", folder, min_sample_size=4000, max_keep_size=5000)
    check_before_loading(task, LAYERS)
    with pytest.raises(
        UserError,
        match=r"train\.tsv has no utterance within task.min_sample_size=4000 and task.max_keep_size=5000 .* 1600 to",
    ):
        task.load_dataset("train")


def test_training_checks_and_decoding_does_not(folder, tmp_path):
    (folder / "train.tsv").write_text("/somewhere\n")
    task = make_task("hubert_pretraining", folder)
    config = model_config(write_pretrained(tmp_path / "w2v.pt", "hubert"))
    task.build_model(config)
    with pytest.raises(UserError, match="lists no utterances"):
        task.load_dataset("train")
    again = make_task("hubert_pretraining", folder)
    again.build_model(config)  # it now holds the encoder's configuration, as in a checkpoint
    assert "load_dataset" not in vars(again)
