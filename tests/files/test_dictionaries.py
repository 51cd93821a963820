"""Dictionary files that fairseq cannot read, and how two dictionaries differ."""

import doctest
from pathlib import Path
from types import ModuleType

import pytest
from fairseq.data import Dictionary

from fairseq_skd.errors import UserError
from fairseq_skd.files import dictionaries, units, waveforms
from fairseq_skd.files.dictionaries import first_difference, fitting_post_process, read_dictionary
from tests.builders import letter_dictionary, write_dictionary


def test_a_valid_file_is_read_as_fairseq_reads_it(tmp_path: Path) -> None:
    for content in (None, "A 1\r\nB 2\r\n", "<unk> 3 #fairseq:overwrite\nA 1\n", "a b 7\n\u2581THE 1"):
        path = write_dictionary(tmp_path)
        if content is not None:
            path.write_bytes(content.encode())
        own, stock = read_dictionary(path), Dictionary.load(str(path))
        assert (own.symbols, own.count, own.indices) == (stock.symbols, stock.count, stock.indices)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"A 1\nB\n", r"line 2 is 'B': write each line as 'symbol count', such as 'A 1'"),  # F25
        (b"A\t1\nB\t1\n", r"line 1 is 'A\\t1': write each line as"),
        (b"A 1\n\nB 1\n", r"line 2 is '': write each line as"),
        (b"A 1\nB one\n", r"line 2 is 'B one': write each line as"),
        (b"A 1\nB 1\nA 2\n", r"line 3 repeats the symbol 'A'"),
        (b"<s> 1\nA 1\n", r"line 1 repeats the symbol '<s>' \(fairseq itself adds <s>, <pad>, </s>, <unk>\)"),
        (b"A 1\n\xc4 1\n", r"line 2 is not UTF-8"),
        (b"\xef\xbb\xbfA 1\n", r"line 1 begins with a byte order mark"),
        (b"", r"holds no symbols"),
        (None, r"does not exist: put it beside the labels"),
    ],
)
def test_a_file_that_fairseq_cannot_read(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "dict.ltr.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^dictionary {path} .*{sentence}|^dictionary {path} {sentence}"):
        read_dictionary(path)


def test_the_first_difference() -> None:
    symbols = letter_dictionary().symbols
    assert first_difference(symbols, list(symbols)) is None
    longer = first_difference(symbols, [*symbols, "\u00c4"])
    assert longer is not None
    assert longer.describe("A", "B") == "at index 32 A has no symbol, B has '\u00c4'"


LETTERS, PIECES = ["<s>", "A", "|"], ["<s>", "A", "\u2581THE"]


@pytest.mark.parametrize(
    ("process", "symbols", "expected"),
    [
        (None, LETTERS, "letter"),
        ("letter", LETTERS, "letter"),
        ("sentencepiece", PIECES, "sentencepiece"),
        ("none", LETTERS, "none"),  # only letter and sentencepiece exclude each other
        ("none", PIECES, "none"),
    ],
)
def test_a_fitting_post_process(process: str | None, symbols: list[str], expected: str) -> None:
    assert fitting_post_process(process, symbols, "key") == expected


@pytest.mark.parametrize(
    ("process", "symbols", "sentence"),
    [
        ("evil", LETTERS, r"^key=evil is unknown: choose one of letter, none, sentencepiece, .*, @@$"),
        ("sentencepiece", LETTERS, r"^key=sentencepiece does not fit .* without word pieces: set it to letter$"),
        ("letter", PIECES, r"^key=letter does not fit a dictionary with word pieces: set it to sentencepiece$"),
        (None, PIECES, r"^key=letter does not fit a dictionary with word pieces: set it to sentencepiece$"),
    ],
)
def test_a_post_process_that_does_not_fit(process: str | None, symbols: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        fitting_post_process(process, symbols, "key")


@pytest.mark.parametrize("module", [dictionaries, units, waveforms])
def test_the_examples(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed
