import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fairseq.data import Dictionary

from fairseq_skd.errors import UserError
from fairseq_skd.files.subset import (
    better_post_process,
    check_audio,
    read_labels,
    read_manifest,
    read_matching_dictionary,
)
from tests.builders import letter_dictionary, write_corpus, write_dictionary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data", {"test": [("A NO", 0.2), ("TEN", 0.1)]})


def read(folder: Path) -> list[str]:
    return read_labels(folder / "test.ltr", read_manifest(folder, "test"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def test_manifest(folder: Path) -> None:
    subset = read_manifest(folder, "test")
    assert subset.root == str((folder / "audio").resolve())
    assert (subset.names, subset.samples) == (["test0.wav", "test1.wav"], [3200, 1600])
    assert subset.where(1) == f"{folder}/test.tsv line 3: {subset.root}/test1.wav"


def test_transcripts_are_in_manifest_order(folder: Path) -> None:
    assert read(folder) == ["A | N O |", "T E N |"]


def test_transcripts_without_a_last_newline(folder: Path) -> None:
    (folder / "test.ltr").write_text("A |\nT")
    assert read(folder) == ["A |", "T"]


def test_an_empty_transcript_is_a_transcript(folder: Path) -> None:
    (folder / "test.ltr").write_text("\nT\n")
    assert read(folder) == ["", "T"]


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("test.tsv", "\t1600", "", r"test\.tsv line 3 is 'test1\.wav': write 'path<TAB>samples'"),
        ("test.tsv", "\t1600", "\t0.1s", r"test\.tsv line 3 is .*: write 'path<TAB>samples'"),
        ("test.tsv", "test1.wav\t1600\n", "\n", r"test\.tsv line 3 is '': write 'path<TAB>samples'"),
        ("test.ltr", "T E N |\n", "", r"test\.ltr has 1 lines, .*test\.tsv lists 2 utterances"),
        ("test.ltr", "N O |\n", "N O |\r\n", r"test\.ltr line 1 holds a carriage return"),
    ],
)
def test_refused_lines(folder: Path, file: str, old: str, new: str, sentence: str) -> None:
    edit(folder / file, old, new)
    with pytest.raises(UserError, match=sentence):
        read(folder)


def test_missing_and_empty_files(folder: Path) -> None:
    with pytest.raises(UserError, match=r"task\.data=.*nowhere is not a folder"):
        read_manifest(folder / "nowhere", "test")
    with pytest.raises(UserError, match=r"dataset\.gen_subset=dev: .*dev\.tsv does not exist; the folder has test"):
        read_manifest(folder, "dev")
    for content in ("", "/root\n"):
        (folder / "empty.tsv").write_text(content)
        with pytest.raises(UserError, match=r"empty\.tsv lists no utterances: write lines 'path<TAB>samples'"):
            read_manifest(folder, "empty")
    (folder / "test.ltr").write_bytes(b"A |\n\xff |\n")
    with pytest.raises(UserError, match=r"test\.ltr is not UTF-8 text \(byte 5\)"):
        read(folder)
    (folder / "test.ltr").unlink()
    with pytest.raises(UserError, match=r"label file .*test\.ltr does not exist"):
        read(folder)


def test_dictionary_of_the_training_data(folder: Path) -> None:
    path = folder / "dict.ltr.txt"
    expected = letter_dictionary()
    assert read_matching_dictionary(path, expected, len(expected)).symbols == expected.symbols
    assert read_matching_dictionary(path, None, len(expected)).symbols == expected.symbols


def test_refused_dictionaries(folder: Path) -> None:
    path, trained = folder / "dict.ltr.txt", letter_dictionary()

    def refused(sentence: str, expected: Dictionary | None = trained) -> None:
        with pytest.raises(UserError, match=sentence):
            read_matching_dictionary(path, expected, len(trained))

    edit(path, "E 1\nT 1\n", "T 1\nE 1\n")
    refused(r"dict\.ltr\.txt line 2 has 'T' where the checkpoint was trained with 'E'")
    edit(path, "T 1\n", "")
    refused(r"dict\.ltr\.txt has 31 symbols, .*, but the checkpoint's CTC head has 32", None)
    path.write_text("A\n")
    refused(r"dictionary .*dict\.ltr\.txt line 1 is 'A': write each line as 'symbol count'")
    path.unlink()
    refused(r"dictionary .*dict\.ltr\.txt does not exist")
    write_dictionary(folder)


def check(folder: Path, sample_rate: int = 16000, shortest: int = 400) -> None:
    check_audio(read_manifest(folder, "test"), sample_rate, shortest)


def test_audio_headers(folder: Path) -> None:
    check(folder)
    with pytest.raises(UserError, match=r"2 of 2 audio files are sampled at 16000 Hz instead of the 8000 Hz"):
        check(folder, sample_rate=8000)
    with pytest.raises(
        UserError, match=r"1 of 2 audio files are shorter than 1601 samples, .* the first is .* line 3: "
    ):
        check(folder, shortest=1601)
    check(folder, shortest=1600)
    audio = folder / "audio" / "test1.wav"
    audio.write_text("no audio")
    with pytest.raises(UserError, match=r"1 of 2 audio files are not readable as audio, the first is .*test1\.wav"):
        check(folder)
    audio.unlink()
    with pytest.raises(UserError, match=r"1 of 2 audio files are missing, the first is .* line 3: .*test1\.wav"):
        check(folder)


def test_audio_inside_an_archive_needs_the_archive(folder: Path) -> None:
    edit(folder / "test.tsv", "test1.wav", "part.zip:40:3244")
    with pytest.raises(UserError, match=r"missing, the first is .*part\.zip:40:3244"):
        check(folder)
    shutil.copy(folder / "audio" / "test1.wav", folder / "audio" / "part.zip")
    check(folder)


@pytest.mark.faults
def test_headers_of_another_length_than_the_manifest_lists(folder: Path) -> None:
    """F5, for decoding: found before the model runs."""
    audio = folder / "audio" / "test1.wav"
    soundfile.write(audio, np.zeros(800, dtype=np.float32), 16000)
    with pytest.raises(
        UserError,
        match=r"^1 of 2 audio files are not as long as the manifest lists them, the first is .*test\.tsv line 3: "
        r".*test1\.wav, which has 800 samples, not 1600: replace it, or make the manifest again$",
    ):
        check(folder)


def test_all_formats_of_libsndfile_are_accepted(folder: Path) -> None:
    for name, kind in (("test1.flac", "FLAC"), ("test1.ogg", "OGG")):
        soundfile.write(folder / "audio" / name, np.zeros(1600, dtype=np.float32), 16000, format=kind)
        edit(folder / "test.tsv", {"test1.flac": "test1.wav", "test1.ogg": "test1.flac"}[name], name)
        check(folder)


def test_a_sample_of_the_headers(folder: Path) -> None:
    write_corpus(folder, {"many": [("A", 0.1)] * 10})
    subset = read_manifest(folder, "many")
    (Path(subset.root) / "many5.wav").unlink()
    sentence = r"1 of 4 audio files looked at \(of 10\) are missing, the first is .* line 7: "
    with pytest.raises(UserError, match=sentence):
        check_audio(subset, 16000, indices=[0, 2, 5, 7])
    check_audio(subset, 16000, indices=[0, 3, 6])
    with pytest.raises(UserError, match="1 of 10 audio files are missing"):
        check_audio(subset, 16000)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("process", "lines", "better"),
    [
        ("letter", ["HH AH L OW", "G OW"], "none"),
        ("letter", ["HH AH | L OW", "G OW"], None),
        ("letter", ["A", "", "B"], None),  # one unit is one word
        ("letter", ["▁GO ▁O N"], "sentencepiece"),
        ("none", ["HH AH L OW"], None),
        (None, ["HH AH L OW"], None),
    ],
)
def test_a_better_post_process(process: str | None, lines: list[str], better: str | None) -> None:
    """F26: phones without a word boundary are one word under post_process=letter."""
    assert better_post_process(process, lines) == better
