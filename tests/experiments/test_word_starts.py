"""Spikes against the starts of words, on a small trained model, with figures worked out by hand."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import word_starts
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import file_hash

GOLDENS = Path(__file__).parents[1] / "goldens"
# At both exits of hubert.pt, words begin on frames 0 and 26 (0.52 s) of test1, and on 0 of test2.
UTTERANCES = (
    ("test1", "IT IS", "test", ["0.000", "0.500"]),  # 0 and 20 ms
    ("test1", "IT IS", "test", ["0.000", "0.560"]),  # 0 and -40 ms
    ("test2", "YES", "test", [""]),  # right, but its start is not known
    ("test2", "YES I", "test", ["0.100", "0.200"]),  # not what the model says
    ("test2", "YES", "train", ["0.300"]),
)


@pytest.fixture
def corpus(tmp_path):
    table, words = ["path\ttext\tsplit\tspeaker"], ["path\tword\tstart"]
    (tmp_path / "audio").mkdir()
    for number, (name, text, split, starts) in enumerate(UTTERANCES):
        shutil.copy(GOLDENS / "corpus" / f"{name}.flac", tmp_path / "audio" / f"{number}.flac")
        table.append(f"{number}.flac\t{text}\t{split}\tann")
        words += [f"{number}.flac\t{word}\t{start}" for word, start in zip(text.split(), starts, strict=True)]
    (tmp_path / "demo.tsv").write_text("\n".join(table) + "\n")
    (tmp_path / "words.tsv").write_text("\n".join(words) + "\n")
    return tmp_path


def test_figures_of_two_exits(corpus):
    word_starts.main([str(GOLDENS / "hubert.pt"), str(corpus), "--out", str(corpus / "found.json")])
    found = json.loads((corpus / "found.json").read_text())
    assert found["checkpoint_sha256"] == file_hash(GOLDENS / "hubert.pt")
    assert (found["utterances"], found["words"], found["words_without_start"]) == (4, 7, 1)
    assert [(exit_["exit_layer"], exit_["layers"]) for exit_ in found["exits"]] == [(4, 4), (2, 4)]
    for exit_ in found["exits"]:
        assert exit_["utterances"] == 3
        values = {
            (which, side, name): exit_[which][side][name]["value"]
            for which in ("all_words", "without_first_words")
            for side in ("signed_ms", "absolute_ms")
            for name in ("median", "90th_percentile")
        }
        # Of 4 values a share of 0.9 is at place 2.7 from 0; of 2 values, at place 0.9.
        assert list(values.values()) == pytest.approx([0, 14, 10, 34, -10, 14, 30, 38])
        assert (exit_["all_words"]["words"], exit_["without_first_words"]["words"]) == (4, 2)
        assert exit_["without_first_words"]["signed_ms"]["median"] == {"value": -10.0, "low": -40.0, "high": 20.0}


def test_a_corpus_without_starts(corpus):
    (corpus / "words.tsv").unlink()
    with pytest.raises(
        UserError, match=r"words\.tsv does not exist: write the corpus with python -m fairseq_skd\.demo"
    ):
        word_starts.main([str(GOLDENS / "hubert.pt"), str(corpus), "--out", str(corpus / "found.json")])


def test_a_model_that_gets_nothing_right(corpus):
    table = (corpus / "demo.tsv").read_text()
    (corpus / "demo.tsv").write_text(table.replace("IT IS", "IT WAS").replace("YES\ttest", "NO\ttest"))
    with pytest.raises(UserError, match="exit 4 gets no test utterance right"):
        word_starts.main([str(GOLDENS / "hubert.pt"), str(corpus), "--out", str(corpus / "found.json")])
