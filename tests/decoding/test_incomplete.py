"""Decodes that lack a part of the audio, or a part of their files."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import replacing
from fairseq_skd.scoring import transcripts
from fairseq_skd.scoring.transcripts import utterance_errors
from tests.decoding.checkpoints import damaged, read_summary, set_constant_symbols
from tests.decoding.test_decode import decode
from tests.scoring.test_transcripts import edit_distance

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.faults]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.slow
def test_a_corrupt_file_does_not_end_a_decode(
    corpus: Path, hubert: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """F29: nothing was written. The other utterances keep their texts and errors."""
    whole = decode(corpus, hubert)
    data = damaged(corpus, tmp_path / "data", 1, 3)
    shutil.rmtree("out")
    found = decode(data, hubert, f"dataset.num_workers={workers}")
    for name in found:
        lines = whole[name].splitlines(keepends=True)
        assert found[name] == b"".join(lines[index] for index in (0, 2, 4))
    written = read_summary()
    texts = [
        [line.rsplit(" (", 1)[0] for line in found[f"{side}.word"].decode().splitlines()] for side in ("hypo", "ref")
    ]
    errors = sum(edit_distance(said.split(), wanted.split()) for said, wanted in zip(*texts, strict=True))
    assert (written["word_errors"], written["words"], written["sentences"]) == (errors, 6, 3)
    assert written["audio_seconds"] == pytest.approx(0.5 + 0.5 + 0.7)
    files = [(one["file"], one["line"]) for one in written["not_decoded"]]
    assert files == [(f"{data}/audio/test1.flac", 3), (f"{data}/audio/test3.flac", 5)]
    assert all(one["reason"] for one in written["not_decoded"])
    told = f"1 of 5 audio files are not readable as audio and will be left out, the first is {data}/test.tsv line 5: "
    assert told in capsys.readouterr().err


def test_no_error_rate_without_words(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    data = damaged(corpus, tmp_path / "data", 0, 1, 2, 3, 4)
    sentence = r"test\.tsv line 2: .*test0\.flac cannot be read: .* \(5 files in all, no word is left to score\)$"
    with pytest.raises(UserError, match=sentence):
        decode(data, hubert)
    assert not list(Path("out").iterdir())


@pytest.mark.parametrize("number", range(5))
@pytest.mark.slow
def test_a_full_disk_between_the_files(
    corpus: Path, hubert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """X9: new and old files were mixed, and later accepted. Other files in the folder stay."""
    checkpoint = set_constant_symbols(hubert, tmp_path / "constant.pt", {"w2v_encoder": "T"})
    decode(corpus, checkpoint)
    shutil.copy(hubert, checkpoint)
    Path("out", "mine.txt").write_text("mine")
    assert utterance_errors(Path("out"))
    written = 0

    def full(path: Path) -> Any:
        nonlocal written
        written += 1
        if written > number:
            raise UserError(f"{path} cannot be written: No space left on device")
        return replacing(path)

    monkeypatch.setattr(transcripts, "replacing", full)
    with pytest.raises(UserError, match=r"out/.* cannot be written: No space left on device$"):
        decode(corpus, checkpoint)
    with pytest.raises(UserError, match=r"/?out is incomplete: "):
        utterance_errors(Path("out"))
    assert Path("out", "mine.txt").read_text() == "mine"
