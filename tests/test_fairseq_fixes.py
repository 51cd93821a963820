"""Fixes of fairseq: labels, audio against the manifest, batches in shared memory, writing."""

import errno
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq import checkpoint_utils
from fairseq.data import HubertDataset
from fairseq.file_io import PathManager
from torch.utils.data import DataLoader

from fairseq_skd import fairseq_fixes
from fairseq_skd.errors import UserError, sentence_of
from tests.builders import write_corpus
from tests.limits import file_limit
from tests.training.tasks import TASKS, make_task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data", {"train": [("A NO", 0.2), ("TEN", 0.1)]})


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_a_file_that_changes_after_the_checks_is_named(name, folder):
    """fairseq's message has the sampling rate, but not the file."""
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


@pytest.mark.parametrize(
    ("raised", "kind", "sentence"),
    [
        (AssertionError(), UserError, "train0.wav cannot be used: AssertionError"),
        (MemoryError(), MemoryError, ""),
        (OSError(errno.EMFILE, "Too many open files"), OSError, "Too many open files"),
        (TypeError("not of the file"), TypeError, "not of the file"),
    ],
)
def test_errors_that_a_file_causes(raised, kind, sentence, folder, monkeypatch):
    def read(*arguments, **keywords):
        raise raised

    task = make_task("hubert_pretraining", folder)
    task.load_dataset("train")
    monkeypatch.setattr(soundfile, "read", read)
    with pytest.raises(kind, match=sentence) as caught:
        task.dataset("train")[0]
    assert type(caught.value) is kind


def test_a_worker_process_names_the_file(folder):
    task = make_task("hubert_pretraining", folder)
    task.load_dataset("train")
    (folder / "audio" / "train1.wav").write_bytes(b"no audio")
    loader = DataLoader(task.dataset("train"), batch_size=None, num_workers=1)
    with pytest.raises(UserError, match=r"audio file .*train1\.wav cannot be used: "):
        list(loader)


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("samples", [800, 1599, 1601])
def test_another_number_of_samples_than_the_manifest_lists(name, samples, folder):
    """F5: half a file was once trained on with its whole transcript."""
    task = make_task(name, folder)
    task.load_dataset("train")
    audio = folder.resolve() / "audio" / "train1.wav"
    soundfile.write(audio, np.zeros(samples, dtype=np.float32), 16000)
    assert task.dataset("train")[0] is not None
    sentence = (
        rf"^audio file {audio} cannot be used: it decodes to {samples} samples, the manifest lists 1600: replace it"
    )
    with pytest.raises(UserError, match=sentence):
        task.dataset("train")[1]


@pytest.mark.faults
def test_a_damaged_file_whose_header_has_the_right_count(folder):
    """F5: the decoded samples count. The header of a truncated MP3 still claims all samples."""
    audio = folder.resolve() / "audio" / "train1.mp3"
    soundfile.write(audio, 0.1 * np.random.default_rng(0).standard_normal(96000), 16000)
    content = audio.read_bytes()
    audio.write_bytes(content[: len(content) // 2])
    listed, decoded = soundfile.info(audio).frames, len(soundfile.read(audio)[0])
    assert decoded < listed == 96000
    (folder / "train.tsv").write_text(f"{audio.parent}\ntrain0.wav\t3200\ntrain1.mp3\t{listed}\n")
    task = make_task("hubert_pretraining", folder)
    task.load_dataset("train")
    with pytest.raises(UserError, match=f"it decodes to {decoded} samples, the manifest lists {listed}"):
        task.dataset("train")[1]


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(name, normalize, value, folder):
    """X7, F27: fairseq reports NaN gradients, and names no file."""
    task = make_task(name, folder, normalize=normalize)
    task.load_dataset("train")
    audio = folder.resolve() / "audio" / "train1.wav"
    wave = soundfile.read(audio, dtype="float32")[0]
    wave[700] = value
    soundfile.write(audio, wave, 16000, subtype="FLOAT")
    with pytest.raises(
        UserError, match=rf"^audio file {audio} cannot be used: it holds NaN or Inf: replace it or remove"
    ):
        task.dataset("train")[1]


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
def test_audio_in_an_archive_is_checked_too(name, folder):
    """F5, with fairseq's <zip>:<offset>:<length>."""
    audio, archive = folder.resolve() / "audio", folder.resolve() / "audio" / "part.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.write(audio / "train1.wav", "train1.wav")
    start = archive.read_bytes().index(b"RIFF")
    place = f"part.zip:{start}:{os.path.getsize(audio / 'train1.wav')}"
    for listed in (1600, 1500):
        (folder / "train.tsv").write_text(f"{audio}\ntrain0.wav\t3200\n{place}\t{listed}\n")
        task = make_task(name, folder)
        task.load_dataset("train")
        if listed == 1600:
            assert len(task.dataset("train")[1]["source"]) == 1600
            continue
        with pytest.raises(UserError, match=rf"audio file {audio}/{place} cannot be used: it decodes to 1600 samples"):
            task.dataset("train")[1]


def test_labels_that_are_not_ascii_end_with_their_line(tmp_path: Path):
    """HuBERT fine-tuning reads labels by offsets; fairseq's original function gets them wrong."""
    lines = ["▁GO ▁ON", "▁IT ▁GO E S", "▁SO", "YES"]
    (tmp_path / "train.spm").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\n" + "".join(f"{i}.wav\t16000\n" for i in range(len(lines))))
    dataset = HubertDataset(
        str(tmp_path / "train.tsv"), 16000, [str(tmp_path / "train.spm")], [-1.0], [1], [2], [str.split],
        shuffle=False, store_labels=False, single_target=True,
    )  # fmt: skip
    assert [dataset.get_label(index, 0) for index in range(len(lines))] == [line.split() for line in lines]
    original = HubertDataset.get_label.__wrapped__
    assert original(dataset, 3, 0) == ["YES"]
    assert original(dataset, 0, 0) == ["▁GO", "▁ON", "▁IT"]
    fairseq_fixes.read_whole_labels()
    assert HubertDataset.get_label.__wrapped__ is original, "a second call changes nothing"


@pytest.mark.faults
@pytest.mark.parametrize("name", TASKS)
def test_a_batch_that_cannot_be_sent_does_not_hang(name, folder):
    """X14: the loader once waited forever, in decoding and in training."""
    task = make_task(name, folder)
    task.load_dataset("train")
    dataset = task.dataset("train")
    loader = DataLoader(dataset, batch_size=1, num_workers=1, collate_fn=dataset.collater, timeout=60)
    with pytest.raises(UserError) as caught, file_limit():
        next(iter(loader))
    told = sentence_of(caught.value)
    assert told.startswith("the process that read a batch cannot send it: unable to resize file </torch_")
    assert told.endswith(
        "(27); enlarge the shared memory or the limit of file sizes (ulimit -f), or set dataset.num_workers=0"
    )


@pytest.mark.faults
def test_a_full_disk_names_the_checkpoint(tmp_path, monkeypatch):
    """X9: fairseq named no file ("enforce fail at inline_container.cc"), and retried in it."""
    monkeypatch.setattr(fairseq_fixes, "_PAUSE", 0)
    last, source = tmp_path / "checkpoint_last.pt", tmp_path / "source.pt"
    last.write_text("old")
    with pytest.raises(UserError) as caught, file_limit():
        checkpoint_utils.torch_persistent_save({"model": torch.zeros(1000)}, str(last))
    assert str(caught.value) == f"{last} cannot be written: File too large"
    checkpoint_utils.torch_persistent_save({"model": torch.zeros(1000)}, str(source))
    with pytest.raises(UserError, match="checkpoint_last.pt cannot be written: File too large"), file_limit():
        PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_last.pt", "source.pt"]
