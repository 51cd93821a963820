"""Paired differences of decoded folders, against counts by hand."""

import json

import pytest

from experiments import paired
from fairseq_skd.errors import UserError


@pytest.fixture
def decoded(tmp_path):
    def write(name, texts, references):
        folder = tmp_path / name
        folder.mkdir()
        for file, lines in (("hypo.word", texts), ("ref.word", references)):
            (folder / file).write_text("".join(f"{line} (None-{i})\n" for i, line in enumerate(lines)))
        pairs = [(text.split(), words.split()) for text, words in zip(texts, references, strict=True)]
        errors = sum(said != wanted for pair in pairs for said, wanted in zip(*pair, strict=True))
        summary = {"word_errors": errors, "words": sum(len(words) for _, words in pairs)}
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return write


REFERENCES = ["A B", "C D E", "F"]


def test_each_utterance_is_paired(decoded, capsys):
    first = decoded("first", ["A B", "C D X", "F"], REFERENCES)  # 1 of 6 words wrong
    second = decoded("second", ["A X", "C X X", "F"], REFERENCES)  # 3 of 6, nowhere fewer
    _, _, difference, utterances = paired.compare([first], [second])
    assert utterances == 3
    assert difference.interval.value == pytest.approx(-2 / 6)
    assert -0.5 <= difference.interval.low <= difference.interval.high <= 0
    paired.main([str(first), "--minus", str(second)])
    assert "3 utterances, WER % [95 %]: 16.7 [" in (out := capsys.readouterr().out)
    assert "difference, points: -33.3 [" in out


def test_parts_of_a_set_are_pooled(decoded):
    whole = [decoded("whole", ["A B", "C D X", "X"], REFERENCES)]
    parts = [decoded("one", ["A B"], REFERENCES[:1]), decoded("two", ["C X X", "F"], REFERENCES[1:])]
    found, other, difference, utterances = paired.compare(whole, parts)
    assert (found.value, other.value, utterances) == (2 / 6, 2 / 6, 3)
    assert difference.interval.value == 0
    assert difference.interval.low < 0 < difference.interval.high


def test_other_utterances(decoded):
    first, second = decoded("a", ["A B"], ["A B"]), decoded("b", ["A B"], ["A C"])
    with pytest.raises(UserError, match=r"/a and .*/b are not of the same utterances in the same order"):
        paired.compare([first], [second])
    with pytest.raises(UserError, match=r"hypo.word: No such file"):
        paired.compare([first], [second / "gone"])


@pytest.mark.faults
@pytest.mark.parametrize("left", [None, '{"word_errors": 3, "words": 6}', '{"word_err'])
def test_a_folder_is_complete_with_its_summary(decoded, left):
    """X9: infer was killed between its files, and the mix of old and new ones was compared."""
    folder = decoded("cut", ["A B", "C D X", "F"], REFERENCES)
    (folder / "summary.json").unlink()
    if left is not None:
        (folder / "summary.json").write_text(left)
    with pytest.raises(UserError, match=r"/cut is incomplete: its hypo\.word and ref\.word have no summary\.json, or "):
        paired.compare([folder], [folder])
