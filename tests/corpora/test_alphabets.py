"""Alphabets of other languages: from training text or a dictionary; letters, pieces, symbols."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from fairseq.data import Dictionary

from fairseq_skd import manifest, ngram
from fairseq_skd.corpora.labels import Labels, choose_units
from fairseq_skd.corpora.records import Record
from fairseq_skd.errors import UserError
from fairseq_skd.transcription.texts import units_of_text

AUDIO = ("a.wav", "deep/b.flac", "c:1.ogg")
Run = Callable[..., Path]


@pytest.fixture
def run(write_table, corpus: Path, tmp_path: Path) -> Run:
    """``run(texts, *options, split="train")`` prepares texts; the last is ``split``."""

    def make(texts: list[str], *options: str, split: str = "train") -> Path:
        splits = ["train"] * (len(texts) - 1) + [split]
        table = write_table(*zip(AUDIO, texts, splits, strict=False))
        manifest.main(["table", str(table), "--audio-root", str(corpus), "--out", str(tmp_path / "out"), *options])
        return tmp_path / "out"

    return make


def records(*texts: str, split: str = "train") -> list[Record]:
    """Make records of the table ``t.tsv``."""
    return [Record("a", text, split, "", "t.tsv", line) for line, text in enumerate(texts, start=2)]


@pytest.mark.parametrize(
    ("language", "steps", "texts", "labels", "dictionary"),
    [
        (
            "de",
            "lower,punctuation",
            ["Straße – über", "Ja,ja"],
            "s t r a ß e | ü b e r |\nj a | j a |\n",
            "| 4\na 3\ne 2\nj 2\nr 2\nb 1\ns 1\nt 1\nß 1\nü 1\n",
        ),
        ("ru", "lower", ["Ёлка ёж"], "ё л к а | ё ж |\n", "| 2\nё 2\nа 1\nж 1\nк 1\nл 1\n"),
        (
            "hi",
            "punctuation",
            ["क्\u200dष।", "हूँ"],
            "क \u094d \u200d ष |\nह \u0942 \u0901 |\n",
            "| 2\n\u0901 1\nक 1\nष 1\nह 1\n\u0942 1\n\u094d 1\n\u200d 1\n",
        ),
        ("zh", "punctuation", ["你好，好"], "你 好 好 |\n", "好 2\n| 1\n你 1\n".replace("好 2\n| 1\n", "| 1\n好 2\n")),
        ("ar", "punctuation", ["كيـف؟", "فِي"], "ك ي ف |\nف \u0650 ي |\n", "| 2\nف 2\nي 2\nك 1\n\u0650 1\n"),
        ("tr", "lower", ["IŞIK İL"], "ı ş ı k | i l |\n", "| 2\nı 2\ni 1\nk 1\nl 1\nş 1\n"),
        ("vi", "lower", [unicodedata.normalize("NFD", "Việt")], "v i ệ t |\n", "| 1\ni 1\nt 1\nv 1\nệ 1\n"),
        ("fa", "punctuation", ["می\u200cرود."], "م ی \u200c ر و د |\n", "| 1\nد 1\nر 1\nم 1\nو 1\nی 1\n\u200c 1\n"),
    ],
)
def test_letters_of_a_language(run: Run, language: str, steps: str, texts: list[str], labels: str, dictionary: str):
    out = run(texts, "--language", language, "--normalize", steps)
    assert (out / "train.ltr").read_text(encoding="utf-8") == labels
    assert (out / "dict.ltr.txt").read_text(encoding="utf-8") == dictionary
    read = Dictionary.load(str(out / "dict.ltr.txt"))
    for line in labels.splitlines():
        assert read.unk() not in read.encode_line(line, append_eos=False, add_if_not_exist=False)


def test_a_source_names_its_language_and_the_option_wins():
    assert choose_units(Labels(language="en"), records("GO")).files() == choose_units(Labels(), []).files()
    assert choose_units(Labels(language="en-GB"), []).files() == choose_units(Labels(), []).files()
    assert choose_units(Labels(language="sw"), records("GO")).files() == {"dict.ltr.txt": b"| 1\nG 1\nO 1\n"}


def test_the_summary_names_size_case_and_rare_symbols(run: Run, capsys):
    run(["ein haus" * 3, "zwei häuser dort", "Ein dorf" + " ein" * 3], "--language", "de")
    lines = capsys.readouterr().out.splitlines()
    assert "note: the alphabet has 16 symbols, those of the training transcripts" in lines
    assert "note: the alphabet has 15 lower-case and 1 upper-case letters; --normalize lower makes one case" in lines
    notes = choose_units(Labels(language="de"), records("ein haus " * 20, "ein жaus")).notes
    assert notes[1:] == ["the alphabet has 'ж' (U+0436 CYRILLIC SMALL LETTER ZHE), which occurs once, in t.tsv:3"]


def test_advice_about_digits_depends_on_the_language(run: Run):
    for language, advice in (("zh", "write it in words"), ("de", "add --normalize digits, or write it in words")):
        with pytest.raises(UserError, match=rf"'8' \(U\+0038 DIGIT EIGHT\)  once, in \S+; {advice}\n"):
            run(["8"], "--language", language)


def test_symbols_outside_are_listed_by_symbol(run: Run, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        run(["hallo, welt", "3 $ mal|x", "ñoño ja Ja"], "--language", "de", split="test")
    table = tmp_path / "table.tsv"
    assert str(caught.value).splitlines()[1:] == [
        "character outside the alphabet (3); correct the transcripts, or change the alphabet as said for each:",
        f"  'ñ' (U+00F1 LATIN SMALL LETTER N WITH TILDE)  2 times, first {table}:4; the training transcripts lack it: "
        "correct the text, or give the alphabet with --dict FILE",
        f"  '$' (U+0024 DOLLAR SIGN)  once, in {table}:3; write it in words",
        f"  ',' (U+002C COMMA)  once, in {table}:2; add --normalize punctuation",
        f"  '3' (U+0033 DIGIT THREE)  once, in {table}:3; add --normalize digits, or write it in words",
        *[
            f"  '{letter}' (U+{ord(letter):04X} LATIN {kind} LETTER {letter.upper()})  once, in {table}:4; {fix}"
            for letter, kind, fix in [
                ("J", "CAPITAL", "the training transcripts lack it: correct the text, or give the alphabet with "
                 "--dict FILE"),
                ("j", "SMALL", "the training transcripts lack it: correct the text, or give the alphabet with "
                 "--dict FILE"),
            ]
        ],
        f"  '|' (U+007C VERTICAL LINE)  once, in {table}:3; fairseq reserves it: write what is said",
        "refused: 3 of 3 rows (character outside the alphabet 3); nothing was written",
    ]  # fmt: skip


def test_foreign_letters_in_assumed_english(run: Run):
    with pytest.raises(UserError, match=r"'Ü' \(U\+00DC .*; English has the letters A-Z: .* such as --language de"):
        run(["ÜBER"])
    with pytest.raises(UserError, match=r"'’' \(U\+2019 RIGHT SINGLE QUOTATION MARK\) .*; add --normalize punctuation"):
        run(["DON’T"])


def test_a_dictionary_keeps_its_bytes_and_allows_what_it_has(run: Run, tmp_path: Path):
    given = tmp_path / "dict.txt"
    given.write_bytes(b"b 1\n| 7\r\na 3\n2 1\n<unk2> 1\n- 1\n")
    out = run(["ab-2 a"], "--dict", str(given), "--language", "de")
    assert (out / "dict.ltr.txt").read_bytes() == given.read_bytes()
    assert (out / "train.ltr").read_text() == "a b - 2 | a |\n"
    with pytest.raises(UserError, match=r"'B' \(U\+0042 .*; add --normalize lower"):
        run(["aB"], "--dict", str(given))
    with pytest.raises(UserError, match=r"'c' \(U\+0063 .*dict.txt lacks it: correct the text, or give another --dict"):
        run(["ac"], "--dict", str(given))


@pytest.mark.parametrize(
    ("content", "unit", "sentence"),
    [
        ("a 1\n", "ltr", r"lacks \|, which --unit ltr writes after each word: add the line '\| 1'"),
        ("| 1\nab 1\n", "ltr", r"the symbol 'ab' is not one character: use --unit phn"),
        ("| 1\ne\u0301 1\n", "ltr", r"is not in Unicode form NFC, but transcripts are: convert the file to NFC"),
        ("| 1\nAA 1\n", "phn", r"has the word boundary \|, which --unit phn lacks: use --unit ltr"),
        ("| 1\n\x1b 1\n", "ltr", r"the symbol '\\x1b' holds a control character: remove it"),
        ("| 1\na\n", "ltr", r"line 2 is 'a': write each line as 'symbol count'"),
        ("a 1\na 1\n", "phn", r"line 2 repeats the symbol 'a'"),
        ("", "phn", "holds no symbols"),
    ],
)
def test_unusable_dictionaries(run: Run, tmp_path: Path, content: str, unit: str, sentence: str):
    (tmp_path / "d.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        run(["a"], "--dict", str(tmp_path / "d.txt"), "--unit", unit)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--language", "german"], "--language 'german' is not a language code; write it as in de, hi or pt-BR"),
        (["--language", "pt_BR"], "--language 'pt_BR' is not a language code"),
        (["--language", "tur"], "--language tur: this language has a code of two letters; write tr"),
        (["--unit", "spm", "--vocab-size", "9", "--dict", "d"], "with --unit spm use --spm-model FILE"),
        (["--unit", "phn", "--lexicon"], "--lexicon needs words"),
        (["--unit", "phn", "--normalize", "digits"], "--normalize digits is for words, but --unit phn takes symbols"),
        (["--unit", "phn", "--vocab-size", "9"], "--vocab-size and --spm-model need --unit spm"),
        (["--language", "de", "--train-split", "dev"], "there is no split dev, only train; .*, or give --dict FILE"),
    ],
)
def test_options_that_do_not_fit(run: Run, options: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        run(["go"], *options)


def test_symbols_with_spaces_between(run: Run, capsys):
    out = run(["HH AH0 l tʃ", "ni3 hao3 l"], "--unit", "phn")
    assert (out / "train.phn").read_text(encoding="utf-8") == "HH AH0 l tʃ\nni3 hao3 l\n"
    assert (out / "train.wrd").read_text(encoding="utf-8") == "HH AH0 l tʃ\nni3 hao3 l\n"
    assert (out / "dict.phn.txt").read_text(encoding="utf-8") == "l 2\nAH0 1\nHH 1\nhao3 1\nni3 1\ntʃ 1\n"
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2] == (
        "note: train with task.labels=[phn] criterion.post_process=none; the WER then counts symbols"
    )
    with pytest.raises(UserError) as caught:
        run(["a | <s>", "a  b", "a x"], "--unit", "phn", split="test")
    text = str(caught.value)
    assert "'<s>'  once, in" in text and "'|' (U+007C VERTICAL LINE)  once, in" in text
    assert text.count("; fairseq reserves it: write what is said") == 2
    assert "a space at its beginning or end, or two in a row" in text
    assert "the training transcripts lack it: correct the text, or give the symbols with --dict FILE" in text


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("zh", ["你好世界你好", "我有你好", "世界世界"]),
        ("fa", ["می\u200cرود می\u200cرود", "رود می\u200cرود", "می"]),
        ("ja", ["ﾊﾝｶｸ ①".replace(" ①", ""), "ﬁn ﾊﾝ", "ﾊﾝｶｸ"]),  # NFKC would change these
        ("hi", ["क्\u200dष क्षमा", "क्\u200dष हूँ", "क्षमा"]),
    ],
)
def test_pieces_of_any_script_keep_the_text(run: Run, language: str, texts: list[str]):
    size = len({sign for text in texts for sign in text} - {" "}) + 2
    out = run(texts, "--language", language, "--unit", "spm", "--vocab-size", str(size))
    dictionary = Dictionary.load(str(out / "dict.spm.txt"))
    model = sentencepiece.SentencePieceProcessor(model_file=str(out / "spm.model"))
    for line, text in zip((out / "train.spm").read_text(encoding="utf-8").splitlines(), texts, strict=True):
        assert dictionary.unk() not in dictionary.encode_line(line, append_eos=False, add_if_not_exist=False)
        assert line.replace(" ", "").replace("\u2581", " ").strip() == text
        assert line == " ".join(model.encode(text, out_type=str))
    with pytest.raises(UserError, match=r"'3' .*; write it in words\n"):
        run([*texts[:2], texts[2] + "3"], "--language", language, "--unit", "spm", "--vocab-size", str(size), "--force")


def test_a_lexicon_in_other_letters(run: Run, tmp_path: Path):
    words = tmp_path / "words.txt"
    words.write_text("u\u0308ber\n", encoding="utf-8")
    out = run(["über rübe"], "--language", "de", "--lexicon", str(words))
    assert (out / "lexicon.txt").read_text(encoding="utf-8") == "über\tü b e r |\n"


def test_texts_of_users_are_composed_like_the_labels(tmp_path: Path):
    dictionary = Dictionary()
    for symbol in "|übera":
        dictionary.add_symbol(symbol)
    text = unicodedata.normalize("NFD", "über")
    assert units_of_text(text, dictionary, "letter") == units_of_text("über", dictionary, "letter")
    dictionary.add_symbol("\u0308")
    dictionary.add_symbol("u")
    assert len(units_of_text(text, dictionary, "letter")) == 6, "a dictionary in NFD is obeyed"
    (tmp_path / "text").write_text(f"{text} a\n" * 3, encoding="utf-8")
    ngram.main([str(tmp_path / "text"), "--order", "2", "--out", str(tmp_path / "lm.arpa")])
    assert "über a" in (tmp_path / "lm.arpa").read_text(encoding="utf-8")
