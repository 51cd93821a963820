"""Which error rate leads, and where it is told."""

import json
from pathlib import Path

import pytest

from fairseq_skd import score
from fairseq_skd.scoring.leading import leading
from fairseq_skd.scoring.scores import compare, score_texts, summarize


@pytest.mark.parametrize(
    ("references", "rate"),
    [
        (["你好世界", "再见"], "cer"),
        (["我 想 去"], "cer"),  # words were separated by a program
        (["コーヒーをください"], "cer"),
        (["สวัสดีครับ", "ขอบคุณ"], "cer"),  # vowels above the line are letters, too
        (["मुझे जगाओ"], "wer"),
        (["안녕하세요"], "wer"),
        (["YES", "NO"], "wer"),  # one word each
        (["我用 WINDOWS"], "wer"),  # most letters count
        (["12 +"], "wer"),
        ([], "wer"),
    ],
)
def test_the_script_decides(references: list[str], rate: str) -> None:
    assert leading(references) == rate


def test_characters_are_aligned_and_compared() -> None:
    one = score_texts(["a", "b"], ["你们好", "再见"], ["你好", "再见"])
    other = score_texts(["a", "b"], ["你好", "再会"], ["你好", "再见"])
    found = summarize(one)
    assert (found["leading"], found["cer"], found["wer"]) == ("cer", 25.0, 50.0)
    assert found["insertions"] == [{"hypothesis": "们", "count": 1}]
    assert compare(one, other)["cer"] == 25.0
    assert compare(one, other)["difference"] == 0.0


def test_score_prints_it_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hyp").write_text("你们好\n再见\n", encoding="utf-8")
    (tmp_path / "ref").write_text("你好\n再见\n", encoding="utf-8")
    out = tmp_path / "s.json"
    score.main([str(tmp_path / "hyp"), str(tmp_path / "ref"), "--alignment", "-", "--json", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["CER", "WER"]
    assert any(line.endswith(": errors 1 of 2 characters, insertions 1") for line in lines)
    assert json.loads(out.read_text())["leading"] == "cer"
