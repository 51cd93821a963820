"""What a run's folder remembers of its data."""

from experiments.folder import data_hash
from experiments.grid import Data


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
