"""Sentences of the seven languages, and one language from table to page."""

import csv
import json
import unicodedata

import pytest

from experiments import languages, languages_corpus
from experiments.languages_corpus import draw, read_languages, table_text
from fairseq_skd.errors import UserError

KNOWN = read_languages()


@pytest.mark.parametrize("code", KNOWN)
def test_sentences(code):
    """The validation and test sentences are new, but hold no new character."""
    lines = draw(KNOWN[code])
    assert lines == draw(KNOWN[code])
    assert len({line.sentence for line in lines}) == len(lines) == sum(languages_corpus.SIZES.values())
    assert {line.variant for line in lines if line.split != "test"} == set(languages_corpus.VARIANTS)
    signs = {split: set() for split in languages_corpus.SIZES}
    for line in lines:
        assert unicodedata.is_normalized("NFC", line.sentence) or code == "hi"
        assert not set("{}") & set(line.sentence)
        signs[line.split].update(line.sentence)
    assert signs["valid"] | signs["test"] <= signs["train"]


def test_capitals_of_turkish():
    assert any(line.sentence.startswith("İki ") for line in draw(KNOWN["tr"]))
    assert not any(line.sentence.startswith("I") and not line.sentence.startswith("Işıl") for line in draw(KNOWN["tr"]))


def test_the_table_is_as_users_have_it():
    rows = list(csv.DictReader(table_text(KNOWN["vi"], draw(KNOWN["vi"])).splitlines(), delimiter="\t"))
    forms = [
        {form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, row["sentence"])} for row in rows if rows
    ]
    assert [*map(sorted, forms[:2])] == [["NFC"], ["NFD"]]
    assert rows[0].keys() >= {"client_id", "path", "sentence", "split"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--languages", "de,xx"], "--languages: there is no xx; choose of de,ru,hi,zh,ar,tr,vi"),
        (["--updates", "0"], "--updates 0 is out of range: give at least 1"),
    ],
)
def test_mistakes(options, sentence, tmp_path):
    with pytest.raises(UserError, match=f"^{sentence}$"):
        languages.main(["--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_language_from_table_to_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    monkeypatch.setattr(languages_corpus, "SIZES", {"train": 24, "valid": 3, "test": 5})
    arguments = ["--out", str(tmp_path), "--languages", "vi", "--updates", "50", "--pretraining", "10", "--jobs", "1"]
    languages.main(arguments)
    shown = capsys.readouterr().out
    assert "vi: write the page: done in " in shown and "Vietnamese" in shown
    found = json.loads((tmp_path / "languages.json").read_text())["languages"]
    assert [(one["code"], one["training_utterances"], one["test_utterances"]) for one in found] == [("vi", 24, 5)]
    folder = tmp_path / "vi"
    assert len(list((folder / "transcripts").glob("*.srt"))) == 5
    assert (folder / "decode-student" / "hypo.ctm").is_file()  # times of words
    reference = (folder / "decode-student" / "ref.word").read_text()
    assert unicodedata.is_normalized("NFC", reference) and reference == reference.lower().replace("none-", "None-")
    assert (folder / "align" / "spikes-0.png").is_file() and (folder / "report.html").is_file()
    languages.main(arguments)
    assert "done in" not in capsys.readouterr().out  # nothing runs twice
