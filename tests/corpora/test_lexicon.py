"""The lexicon for beam search."""

from pathlib import Path

import pytest

from fairseq_skd import manifest
from fairseq_skd.errors import UserError


def run(table: Path, corpus: Path, out: Path, *options: str) -> None:
    """Run the command in this process."""
    manifest.main(["table", str(table), "--audio-root", str(corpus), "--out", str(out), *options])


@pytest.fixture
def table(write_table) -> Path:
    """Write a table with repeated words, and one word that only the test split has."""
    rows = [("a.wav", "ON GO ON", "train"), ("deep/b.flac", "DON'T GO", "train"), ("c:1.ogg", "QUIZ", "test")]
    return write_table(*rows)


def test_lexicon_of_the_train_words_in_letters(table: Path, corpus: Path, tmp_path: Path):
    run(table, corpus, tmp_path / "out", "--lexicon")
    assert (tmp_path / "out" / "lexicon.txt").read_text() == "DON'T\tD O N ' T |\nGO\tG O |\nON\tO N |\n"
    run(table, corpus, tmp_path / "test", "--lexicon", "--train-split", "test")
    assert (tmp_path / "test" / "lexicon.txt").read_text() == "QUIZ\tQ U I Z |\n"


def test_a_word_has_the_same_pieces_in_lexicon_and_transcript(table: Path, corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(table, corpus, out, "--unit", "spm", "--vocab-size", "29", "--lexicon")
    entries = dict(line.split("\t") for line in (out / "lexicon.txt").read_text().splitlines())
    assert sorted(entries) == ["DON'T", "GO", "ON"]
    assert " ".join(entries[word] for word in ("ON", "GO", "ON")) == (out / "train.spm").read_text().splitlines()[0]
    known = {line.split()[0] for line in (out / "dict.spm.txt").read_text().splitlines()}
    assert {unit for spelling in entries.values() for unit in spelling.split()} <= known


def test_a_list_of_words(table: Path, corpus: Path, tmp_path: Path):
    words = tmp_path / "words.txt"
    words.write_text("ZOO\n\nAN\nZOO\n")
    run(table, corpus, tmp_path / "out", "--lexicon", str(words))
    assert (tmp_path / "out" / "lexicon.txt").read_text() == "AN\tA N |\nZOO\tZ O O |\n"


def test_a_list_of_words_that_cannot_be_used(table: Path, corpus: Path, tmp_path: Path):
    words = tmp_path / "words.txt"
    words.write_text("ZOO\nan\nGO ON\n")
    with pytest.raises(UserError) as caught:
        run(table, corpus, tmp_path / "out", "--lexicon", str(words))
    assert [line for line in str(caught.value).splitlines() if line.startswith("  ")] == [
        f"  {words}:2  'an': 'a' 'n'",
        f"  {words}:3  'GO ON': ' '",
    ]
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="none.txt: cannot be read"):
        run(table, corpus, tmp_path / "out", "--lexicon", str(tmp_path / "none.txt"))
    words.write_text("\n")
    with pytest.raises(UserError, match="words.txt: holds no words; write one per line"):
        run(table, corpus, tmp_path / "out", "--lexicon", str(words))
