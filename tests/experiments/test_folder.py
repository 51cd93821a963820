"""What a run's folder remembers of its data."""

from experiments.folder import data_hash


def test_the_data_hash_sees_what_is_trained_on_but_not_the_root(data):
    before = data_hash(data)
    (data / "train.tsv").write_text("/elsewhere\na.wav\t16000\n")
    (data / "lexicon.txt").write_text("A A |\n")
    (data / "audio").mkdir()
    assert data_hash(data) == before
    seen = {before}
    for name, text in (("train.ltr", "B |\n"), ("train.phn", "AH\n"), ("dict.ltr.txt", "A 1\n")):
        (data / name).write_text(text)
        seen.add(data_hash(data))
    assert len(seen) == 4
