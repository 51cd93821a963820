from pathlib import Path

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.search.lexicon import coverage, read_lexicon

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "|", "A", "N", "O"]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581A", "\u2581N", "O"]


def read(tmp_path: Path, text: str | bytes, symbols: list[str] = SYMBOLS):
    path = tmp_path / "lexicon.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_lexicon(path, symbols, specials=4)


def test_words_and_their_spellings(tmp_path: Path) -> None:
    lexicon = read(tmp_path, "NO\tN O |\nA A |\n\nNO\tO N |\r\nNO\tN O |\n")
    assert lexicon.words == {"NO": [(6, 7, 4), (7, 6, 4)], "A": [(5, 4)]}
    assert read(tmp_path, "NO\t\u2581N O\n", PIECES).words == {"NO": [(5, 6)]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A\tA |\nNO\n", r"1 lines have no spelling \(line 2: NO\): write 'WORD<TAB>unit unit \.\.\.'"),
        (
            "A\tA |\nÉ\tÉ |\nNO\tn o |\n",
            r"2 lines hold units that the dictionary lacks \(line 2: É in É; line 3: n in NO\)",
        ),
        ("A\t<unk> |\n", r"hold units that the dictionary lacks \(line 1: <unk> in A\)"),
        ("A\tA\nNO\tN O |\n", r"1 lines have a spelling that does not end in \| \(line 1: A\): end each word in \|"),
        ("\n \n", "holds no words"),
        (b"A\tA |\n\xff", r"is not UTF-8 text \(byte 7\)"),
        ("".join(f"W{i}\tA |\n" for i in range(7)), r"7 words share one spelling \(W0, W1, W2, \.\.\.\)"),
        ("".join(f"W{i}\n" for i in range(7)), r"7 lines .* \(line 1: W0; line 2: W1; line 3: W2, \.\.\.\)"),
    ],
)
def test_lexicons_that_cannot_be_used(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, text)


def test_a_missing_lexicon(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lexicon .*none.txt does not exist"):
        read_lexicon(tmp_path / "none.txt", SYMBOLS, 4)


def test_coverage(tmp_path: Path) -> None:
    lexicon = read(tmp_path, "NO\tN O |\nA\tA |\n")
    assert coverage(lexicon, ["A NO", "ON ON", "", "OH NO"]) == (3, 6, 2)
