"""What a run's folder remembers of its data and its encoder."""

import hashlib
import json

import pytest

from experiments import execution
from experiments.folder import data_hash, encoder_hash
from experiments.grid import Data, runs_of
from experiments.results import state
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, stub


def test_the_data_of_a_run(tmp_path):
    settings = {"task.data": tmp_path, "task.labels": "[spm]", "dataset.train_subset": "train_10h", "lr": 1}
    data = Data.of(settings)
    names = [file.relative_to(tmp_path).as_posix() for file in data.training_files()]
    assert names == ["train_10h.tsv", "valid.tsv", "train_10h.spm", "valid.spm", "dict.spm.txt"]
    apart = Data.of({"task.data": tmp_path, "task.label_dir": tmp_path / "labels"})
    assert [file.relative_to(tmp_path).as_posix() for file in apart.files("test")] == ["test.tsv", "labels/test.ltr"]


def test_the_data_hash_sees_what_is_trained_on_but_not_the_root(data):
    files = Data.of({"task.data": data}).training_files()
    before = data_hash(files)
    (data / "train.tsv").write_text("/elsewhere\na.wav\t16000\n")
    for other in ("lexicon.txt", "more.tsv", "more.ltr", "train.wrd", "test.ltr"):
        (data / other).write_text("A A |\n")
    assert data_hash(files) == before
    seen = {before}
    for name in ("train.tsv", "train.ltr", "valid.ltr", "dict.ltr.txt"):
        (data / name).write_text("B |\nB\n")
        seen.add(data_hash(files))
    assert len(seen) == 5


def test_an_encoder_that_was_changed(grid, tmp_path, data):
    """By its content, of a file or of a folder; where it lies says the command."""
    encoder = tmp_path / "w2v.pt"
    encoder.write_bytes(b"weights")
    (run,) = [stub(run, data) for run in runs_of(grid, tmp_path, {**GIVEN, "model.w2v_path": encoder}, ["skd"], [1])]
    execution.run_all([run], tmp_path)
    noted = json.loads((run.folder / "result.json").read_text())["encoder_sha256"]
    assert noted == hashlib.sha256(b"weights").hexdigest() == encoder_hash(encoder)
    encoder.write_bytes(b"Weights")
    with pytest.raises(UserError, match=rf"seed1 was begun with another encoder, {encoder} was changed since; move it"):
        execution.run_all([run], tmp_path)
    assert state(run) == "its folder holds a run from another encoder"
    folder = tmp_path / "transformers"
    (folder / "onnx").mkdir(parents=True)
    seen = {encoder_hash(folder)}
    for name, content in (("config.json", "{}"), ("config.json", "{ }"), ("model.safetensors", "{}")):
        (folder / name).write_text(content)
        seen.add(encoder_hash(folder))
    assert len(seen) == 4 and encoder_hash(tmp_path / "none") == hashlib.sha256().hexdigest()
