"""Each step on hand-made texts, the notes of the summary, and no change without the option."""

import doctest
from pathlib import Path
from types import ModuleType

import pytest

from fairseq_skd import manifest
from fairseq_skd.corpora import alphabets, languages, normalization, records, releases
from fairseq_skd.corpora.normalization import lower, normalize, punctuation, upper
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
    ("language", "text", "plain"),
    [
        ("de", "„Ja,nein“ – z.B. Kolleg(inn)en", "Ja nein zB Kolleginnen"),
        ("es", "¿Qué?¡Vale!", "Qué Vale"),
        ("hi", "नमस्ते।दुनिया॥ क\u094d\u200dष?", "नमस्ते दुनिया क\u094d\u200dष"),
        ("zh", "《你好》，世界。A，B", "你好世界 A B"),
        ("ja", "東京・大阪、「はい」", "東京 大阪はい"),
        ("ar", "كيـــف،حالك؟", "كيف حالك"),
        ("am", "ሰላም፡ለዓለም።", "ሰላም ለዓለም"),
        ("he", "תל־אביב צ׳ק צה״ל", "תל אביב צ'ק צהל"),
        ("ca", "col·legi", "collegi"),
        ("el", "ναι·όχι;", "ναι όχι"),
        ("uk", "п’ять м\u02bcяч", "п'ять м'яч"),
        ("haw", "‘okina \u02bbokina", "\u02bbokina \u02bbokina"),
        ("nv", "\u02bcaad\u02bc", "\u02bcaad\u02bc"),
        ("fi", "EU:n", "EUn"),
        ("de", "EU:n", "EU n"),
        ("fa", "می\u200cخواهم.", "می\u200cخواهم"),
        ("de", "5 %, 3 ‰ §1", "5 % 3 ‰ §1"),
        ("de", "Sil\u00adbe\u200e \ufeff", "Silbe"),
    ],
)
def test_punctuation_of_other_scripts(language: str, text: str, plain: str):
    assert punctuation(text, language) == plain
    assert punctuation(plain, language) == plain


def test_case_by_the_rules_of_the_language():
    assert lower("IŞIK İSTANBUL", "tr") == "ışık istanbul"
    assert lower("I\u0307", "az") == "i", "also from NFD"
    assert upper("ışık istanbul", "az-Latn") == "IŞIK İSTANBUL"
    assert lower("IŞIK", "de") == "işik"
    assert lower("ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ") == "οδυσσευς σοφος"
    assert upper("straße") == "STRASSE"


def test_nfc_comes_last_and_is_counted():
    records = [Record("a", "E\u0301 İ", "train", "", "t.tsv", 2), Record("b", "é", "train", "", "t.tsv", 3)]
    changed, notes, _ = normalize(records, ("lower",), "fr")
    assert [record.text for record in changed] == ["é i\u0307", "é"]
    assert notes[-1] == "Unicode form NFC changed 1 of 2 transcripts, first t.tsv:2: 'e\u0301 i\u0307' -> 'é i\u0307'"
    assert normalize(records[1:], ()) == (records[1:], [], [])


def test_the_order_of_steps_is_fixed_and_notes_count_changes():
    records = [
        Record("a", "At 10, it’s € 5!", "train", "", "t.tsv", 2),
        Record("b", "GO ON", "train", "", "t.tsv", 3),
    ]
    changed, notes, problems = normalize(records, ("upper", "punctuation", "digits"))
    assert [record.text for record in changed] == ["AT TEN IT'S € FIVE", "GO ON"] and problems == []
    assert notes == [
        "--normalize digits changed 1 of 2 transcripts, first t.tsv:2: 'At 10, it’s € 5!' -> 'At ten, it’s € five!'",
        "--normalize punctuation changed 1 of 2 transcripts, first t.tsv:2: "
        "'At ten, it’s € five!' -> \"At ten it's € five\"",
        '--normalize upper changed 1 of 2 transcripts, first t.tsv:2: "At ten it\'s € five" -> "AT TEN IT\'S € FIVE"',
    ]
    assert normalize(records, ()) == (records, [], [])


@pytest.mark.parametrize("module", [alphabets, languages, normalization, records, releases])
def test_the_examples(module: ModuleType):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_the_command(write_table, corpus: Path, tmp_path: Path, capsys):
    table, out = write_table(("a.wav", "Go, 2!", "train"), ("deep/b.flac", "YES", "train")), tmp_path / "out"
    arguments = ["table", str(table), "--audio-root", str(corpus), "--out", str(out)]
    with pytest.raises(UserError, match=r"'o' \(U\+006F .*add --normalize upper"):
        manifest.main(arguments)
    with pytest.raises(UserError, match=r"'2' .* once, in .*table.tsv:2; add --normalize digits"):
        manifest.main([*arguments, "--normalize", "upper,punctuation"])
    manifest.main([*arguments, "--normalize", "upper,punctuation,digits"])
    assert (out / "train.wrd").read_text() == "GO TWO\nYES\n"
    assert "note: --normalize upper changed 1 of 2 transcripts, first" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        manifest.main([*arguments, "--normalize", "title"])
    assert "there is no step 'title'; choose from digits, punctuation, lower, upper" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        manifest.main([*arguments, "--normalize", "lower,upper"])
    assert "lower and upper exclude each other; give one of them" in capsys.readouterr().err


def test_numbers_that_are_not_spelt_are_refused_rows(write_table, corpus: Path, tmp_path: Path):
    table = write_table(("a.wav", "At 12:30, in 1999", "train"), ("deep/b.flac", "é 2", "train"))
    arguments = ["table", str(table), "--audio-root", str(corpus), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError) as caught:
        manifest.main([*arguments, "--normalize", "digits,upper,punctuation"])
    assert str(caught.value).splitlines()[1:] == [
        "number that is not spelt (1); --normalize digits spells cardinal numbers only: write what is said, or remove "
        "the row:",
        f"  {table}:2  a.wav  '12:30,' is a time; '1999' may be a year",
        "character outside the alphabet (1); correct the transcripts, or change the alphabet as said for each:",
        f"  'É' (U+00C9 LATIN CAPITAL LETTER E WITH ACUTE)  once, in {table}:3; English has the letters A-Z: correct "
        "the text, or name its language, such as --language de",
        "refused: 2 of 2 rows (number that is not spelt 1, character outside the alphabet 1); nothing was written",
    ]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("کتاب\u200c خوب", "کتاب خوب"),
        ("می\u200cروم", "می\u200cروم"),
        ("\u200d ا \u200cب", "ا ب"),
        ("బస్\u200c అ", "బస్\u200c అ"),  # after a virama, the joiner says how the letter is written
    ],
)
def test_joiners_at_the_edge_of_a_word(text: str, result: str):
    assert punctuation(text, "fa") == result
