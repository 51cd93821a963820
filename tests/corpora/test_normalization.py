"""Each step on hand-made texts, the notes of the summary, and no change without the option."""

import doctest
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fairseq_skd import manifest
from fairseq_skd.corpora import normalization, records, releases
from fairseq_skd.corpora.normalization import digits, normalize, punctuation
from fairseq_skd.corpora.records import Record
from fairseq_skd.errors import UserError


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Don’t stop, he said.", "Don't stop he said"),
        ("it‘s the dogs’ ʼem", "it's the dogs' 'em"),
        ("well-known — and/or  so…on", "well known and or so on"),
        ("'Hello' she said; 'go' 'n' ' (no)", "Hello she said go n no"),
        ("«Oui» “no”¿", "Oui no"),
        ("U.S. a.m.\tnow\u00a0then", "US am now then"),
        ("five % of $ a & b @ c", "five % of $ a & b @ c"),
        ("rock 'n' roll 'cause", "rock n roll 'cause"),
    ],
)
def test_punctuation(text: str, plain: str):
    assert punctuation(text) == plain
    assert punctuation(plain) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("21 of 1,500", "twenty one of one thousand five hundred"),
        ("the 3rd, 21st and 102nd", "the third , twenty first and one hundred and second"),
        ("2.5 or 0.07", "two point five or zero point zero seven"),
        ("10:30", "ten : thirty"),
        ("mp3s", "mp three s"),
        ("no numbers  here", "no numbers  here"),
        ("1234567890123456", "1234567890123456"),
        ("٣", "٣"),
    ],
)
def test_digits(text: str, plain: str):
    assert digits(text) == plain


def test_the_order_of_steps_is_fixed_and_notes_count_changes():
    records = [
        Record("a", "At 10:30, it’s €5!", "train", "", "t.tsv", 2),
        Record("b", "GO ON", "train", "", "t.tsv", 3),
    ]
    changed, notes = normalize(records, ("upper", "punctuation", "digits"))
    assert [record.text for record in changed] == ["AT TEN THIRTY IT'S € FIVE", "GO ON"]
    assert notes == [
        "--normalize digits changed 1 of 2 transcripts, first t.tsv:2: "
        "'At 10:30, it’s €5!' -> 'At ten : thirty , it’s € five !'",
        "--normalize punctuation changed 1 of 2 transcripts, first t.tsv:2: "
        "'At ten : thirty , it’s € five !' -> \"At ten thirty it's € five\"",
        "--normalize upper changed 1 of 2 transcripts, first t.tsv:2: "
        '"At ten thirty it\'s € five" -> "AT TEN THIRTY IT\'S € FIVE"',
    ]
    assert normalize(records, ()) == (records, [])


@pytest.mark.parametrize("module", [normalization, records, releases])
def test_the_examples(module: ModuleType):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(UserError, match=r"--normalize digits needs num2words: pip install 'fairseq_skd\[digits\]'"):
        digits("3 things")
    assert digits("three things") == "three things"


def test_the_command(write_table, corpus: Path, tmp_path: Path, capsys):
    table, out = write_table(("a.wav", "Go, 2!", "train"), ("deep/b.flac", "YES", "train")), tmp_path / "out"
    arguments = ["table", str(table), "--audio-root", str(corpus), "--out", str(out)]
    with pytest.raises(UserError, match="o , 2 !; write it in upper case"):
        manifest.main(arguments)
    with pytest.raises(UserError, match="table.tsv:2  a.wav  2"):
        manifest.main([*arguments, "--normalize", "upper,punctuation"])
    manifest.main([*arguments, "--normalize", "upper,punctuation,digits"])
    assert (out / "train.wrd").read_text() == "GO TWO\nYES\n"
    assert "note: --normalize upper changed 1 of 2 transcripts, first" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        manifest.main([*arguments, "--normalize", "lower"])
    assert "there is no step 'lower'; choose from digits, punctuation, upper" in capsys.readouterr().err
