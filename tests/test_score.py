"""The command: what it prints and writes, on small files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fairseq_skd
from fairseq_skd import score
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.transcripts import Transcript, write_transcripts
from fairseq_skd.scoring.transcripts import score as score_of_infer

REFERENCES = ["THE CAT SAT", "GO ON", "NO", "IT IS NOT"]
HYPOTHESES = ["THE BAT SAT", "GOON", "NO", "IT IS IT IS"]
REPOSITORY = Path(fairseq_skd.__file__).resolve().parents[1]


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    """A results folder as infer writes it, in another order than the manifest."""
    transcripts = [Transcript(texts, texts) for texts in (HYPOTHESES, REFERENCES)]
    write_transcripts(tmp_path / "decoded", *transcripts, [2, 0, 3, 1])
    (tmp_path / "test.spk").write_text("bob\nbob\nann\nann\n")
    return tmp_path / "decoded"


def run(*arguments: object) -> None:
    score.main([str(argument) for argument in arguments])


def test_figures_equal_those_of_infer(decoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = decoded / "score.json"
    run(decoded / "hypo.word", decoded / "ref.word", "--json", out, "--speakers", decoded.parent / "test.spk")
    found = json.loads(out.read_text())
    words, characters = score_of_infer(Transcript([], HYPOTHESES), Transcript([], REFERENCES))
    assert (found["word_errors"], found["words"], found["wer"]) == (*words, round(words.rate, 4))
    assert (found["character_errors"], found["characters"], found["cer"]) == (*characters, round(characters.rate, 4))
    assert [one["speaker"] for one in found["utterances"]] == ["ann", "bob", "ann", "bob"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("ref.word (trn): 4 utterances, paired by name")
    assert lines[3].split()[:2] == ["WER", "55.56"] and "5  of 9 words" in lines[3]
    assert "intervals: bootstrap over 4 utterances and 2 speakers" in lines
    assert "      1  CAT -> BAT" in lines


def test_alignments(decoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(decoded / "hypo.word", decoded / "ref.word", "--alignment", decoded / "errors.txt")
    written = (decoded / "errors.txt").read_text()
    assert written.startswith("None-2: errors 1 of 3 words, substitutions 1\nREF:  THE CAT SAT\nHYP:  THE BAT SAT\n")
    capsys.readouterr()
    run(decoded / "hypo.word", decoded / "ref.word", "--alignment", "-")
    assert capsys.readouterr().out.endswith(written)


def test_transcribed_files_against_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hyp.jsonl").write_text(
        '{"audio": "/data/x/b.flac", "text": "go on"}\n{"audio": "/data/x/a.flac", "text": "don\u2019t."}\n'
    )
    (tmp_path / "table.tsv").write_text("path\ttext\tspeaker\nx/a.flac\tDON'T\tann\nx/b.flac\tGO ON\tbob\nc\tNO\tbob\n")
    files = (tmp_path / "hyp.jsonl", tmp_path / "table.tsv")
    with pytest.raises(UserError, match=r"hyp.jsonl lacks 1 of the 3 utterances of .*table.tsv \(c\)"):
        run(*files)
    run(*files, "--unmatched", "delete", "--normalize", "punctuation,upper", "--json", tmp_path / "s.json")
    shown = capsys.readouterr()
    assert "references without hypothesis: 1; all their words count as deleted" in shown.out
    assert "hyp.jsonl: --normalize upper changed 2 of 2 transcripts" in shown.err
    found = json.loads((tmp_path / "s.json").read_text())
    assert (found["wer"], found["word_deletions"], found["missing"], found["speakers"]) == (25.0, 1, 1, 2)
    run(*files, "--unmatched", "skip")
    assert "references without hypothesis: 1; they are left out" in capsys.readouterr().out


@pytest.mark.faults
def test_other_writings_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hyp").write_text("Go u\u0308ber ON, IT\n")
    (tmp_path / "ref").write_text("GO \u00fcber ON IS\n")
    run(tmp_path / "hyp", tmp_path / "ref")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: 1 of 4 substitutions differ only in case; to ignore it, add --normalize upper",
        "note: 1 of 4 substitutions differ only in punctuation; to ignore it, add --normalize punctuation",
        "note: 1 of 4 substitutions differ only in Unicode form; to ignore it, convert both files to NFC",
    ]


def test_two_systems(decoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (decoded / "better").write_text(
        "".join(f"{text} (None-{i})\n" for text, i in zip(REFERENCES, [2, 0, 3, 1], strict=True))
    )
    files = (decoded / "hypo.word", decoded / "ref.word", "--against", decoded / "better")
    run(*files, "--json", decoded / "s.json")
    found = json.loads((decoded / "s.json").read_text())["against"]
    assert (found["wer"], found["difference"]) == (0.0, 55.5556)
    assert "WER +55.56 points" in capsys.readouterr().out
    (decoded / "better").write_text("NO (None-3)\n")
    with pytest.raises(UserError, match="--against lacks other utterances than HYP"):
        run(*files, "--unmatched", "skip")


@pytest.mark.faults
def test_one_utterance_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn again and again, it would give an interval without width."""
    (tmp_path / "hyp").write_text("GO ON\n")
    (tmp_path / "ref").write_text("GO IN\n")
    run(tmp_path / "hyp", tmp_path / "ref", "--json", tmp_path / "s.json")
    shown = capsys.readouterr().out
    assert "50.00" in shown and "95 %" not in shown and "no intervals: there is one utterance" in shown
    assert json.loads((tmp_path / "s.json").read_text())["intervals"] == {"level": 0.95}
    with pytest.raises(UserError, match="--against compares several utterances"):
        run(tmp_path / "hyp", tmp_path / "ref", "--against", tmp_path / "ref")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["hyp", "hyp"], "hyp: HYP and REF are the same file; give a hypothesis and a reference"),
        (["hyp", "none"], "none: no word in the 2 references; give transcripts with words"),
        (["hyp", "ref", "--json", "ref"], "--json ref would replace a file that is read; give another name"),
        (["hyp", "missing"], r"missing: cannot be read \(No such file or directory\); check the path"),
    ],
)
def test_mistakes(options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("hyp", "GO\nON\n"), ("ref", "GO\nNO\n"), ("none", "\n\n")):
        Path(name).write_text(content)
    with pytest.raises(UserError, match=f"^{sentence}$"):
        score.main(options)


def test_an_empty_hypothesis_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hyp").write_text("\n\n")
    (tmp_path / "ref").write_text("GO\nNO\n")
    run(tmp_path / "hyp", tmp_path / "ref")
    assert "100.00" in capsys.readouterr().out


@pytest.mark.slow
def test_neither_torch_nor_fairseq_is_imported(decoded: Path) -> None:
    """So that it starts at once."""
    program = (
        "import sys; from fairseq_skd import score; score.main(sys.argv[1:]); "
        "assert not {'torch', 'fairseq'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, decoded / "hypo.word", decoded / "ref.word"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.DEVNULL)
