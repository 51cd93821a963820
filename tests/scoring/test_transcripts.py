import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from fairseq_skd.scoring.transcripts import (
    Transcript,
    score,
    transcribe,
    transcribe_references,
    write_summary,
    write_transcripts,
)
from tests.builders import letter_dictionary


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Compute Levenshtein's recursion over prefixes."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, start=1):
        row, above = [i], row
        for j, right in enumerate(second, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def transcript(*words: str) -> Transcript:
    return Transcript([" ".join(text.replace(" ", "|")) for text in words], list(words))


def test_units_to_words() -> None:
    units = [[7, 4, 10, 8, 4], [], [4, 4, 5, 3]]  # A|NO|, nothing, ||E<unk>
    assert transcribe(units, letter_dictionary(), "letter") == Transcript(
        ["A | N O |", "", "| | E <unk>"], ["A NO", "", "E<unk>"]
    )
    assert transcribe(units[:1], letter_dictionary(), None).words == ["A | N O |"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("process", "units", "words"),
    [
        ("letter", "N A Ï V E | N O |", "NAÏVE NO"),
        ("letter", "A <unk> | <laugh> |", "A\ufffd \ufffd"),
        ("letter", "</s> A <pad> <s>", "\ufffdA\ufffd\ufffd"),  # fairseq drops two of them
        ("none", "A AX <unk> N", "A AX \ufffd N"),
        ("sentencepiece", "▁NO <unk> A ▁Ï N", "NO\ufffdA ÏN"),
    ],
)
def test_references_with_unknown_symbols(process: str, units: str, words: str) -> None:
    """F4: each is at least one character, and one that no hypothesis contains."""
    dictionary = letter_dictionary()
    found, unknown = transcribe_references([units.split(), ["A"]], dictionary, process)
    assert found == Transcript([units, "A"], [words, "A"])
    assert unknown == Counter(symbol for symbol in units.split() if symbol not in "|AENOV")


def test_rates_are_over_the_whole_set() -> None:
    # 1 error in 1 word and 1 in 4: 2 / 5 words, not the mean of 100 % and 25 %
    found = score(transcript("B", "A B C D E"), transcript("A", "A B C D"))
    assert found.words == (2, 5)
    assert found.words.rate == pytest.approx(40.0)
    # characters: 1 of 1, and " E" inserted into the seven of "A B C D"
    assert (found.characters.errors, found.characters.total) == (3, 8)


def test_an_empty_reference_counts_its_insertions() -> None:
    found = score(transcript("A B", ""), transcript("", "C"))
    assert (found.words.errors, found.words.total) == (3, 1)


def test_several_word_ends_are_one_space() -> None:
    assert score(Transcript(["A | | B"], ["A  B"]), Transcript(["A | B"], ["A B"])).characters.errors == 0


def test_errors_equal_a_plain_edit_distance() -> None:
    draw = random.Random(1)
    sentences = [
        [" ".join(draw.choices(["A", "AB", "B", "CAB"], k=draw.randint(0, 9))) for _ in range(60)] for _ in "ab"
    ]
    found = score(transcript(*sentences[0]), transcript(*sentences[1]))
    pairs = list(zip(*sentences, strict=True))
    assert found.words.errors == sum(edit_distance(a.split(), b.split()) for a, b in pairs)
    assert found.words.total == sum(len(b.split()) for _, b in pairs)
    assert found.characters.errors == sum(edit_distance(a, b) for a, b in pairs)
    assert found.characters.total == sum(len(b) for _, b in pairs)


def test_four_files_byte_by_byte(tmp_path: Path) -> None:
    hypothesis = Transcript(["A |", "", "É"], ["A", "", "É"])
    write_transcripts(tmp_path / "new", hypothesis, transcript("A B", "NO", "C"), [0, 1, 3])
    expected = {
        "hypo.word": "A (None-0)\n (None-1)\nÉ (None-3)\n",
        "hypo.units": "A | (None-0)\n (None-1)\nÉ (None-3)\n",
        "ref.word": "A B (None-0)\nNO (None-1)\nC (None-3)\n",
        "ref.units": "A | B (None-0)\nN O (None-1)\nC (None-3)\n",
    }
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert written == {name: text.encode("utf-8") for name, text in expected.items()}


def test_summary_is_json_and_replaces_the_old_one(tmp_path: Path) -> None:
    for wer in (1.0, 2.0):
        write_summary(tmp_path / "summary.json", {"wer": wer})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"wer": 2.0}
    with pytest.raises(ValueError, match="JSON"):
        write_summary(tmp_path / "summary.json", {"wer": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"wer": 2.0}
