"""Each format, how it is told, and each message about a file that cannot be used."""

from pathlib import Path

import pytest

from fairseq_skd.corpora.transcripts import Source, Transcripts, read_transcripts
from fairseq_skd.errors import UserError

TEXTS = [("utt-1", "GO ON"), ("utt-2", ""), ("utt-3", "IT IS")]
FILES = {
    "text": ("a.txt", "GO ON\n\nIT IS\n"),
    "trn": ("a.hyp", "GO ON (utt-1)\n(utt-2)\nIT IS (utt-3)\n"),
    "kaldi": ("text", "utt-1 GO ON\nutt-2\nutt-3\tIT IS\n"),
    "jsonl": (
        "a.out",
        '{"audio": "/x/utt-1.flac", "text": "GO ON", "words": []}\n{"audio": "/x/utt-2.flac", "text": ""}\n'
        '{"audio": "/x/utt-3.flac", "text": "IT IS"}\n',
    ),
    "table": ("a.out", "path\ttext\nx/utt-1.wav\tGO ON\nx/utt-2.wav\t\nx/utt-3.wav\tIT IS\n"),
}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, kind: str | None = None, keys: tuple[str, ...] = ("text",)) -> Transcripts:
    return read_transcripts([Source(path, "--ref-format", kind, keys)])[0]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("told", [True, False])
def test_every_format(kind: str, told: bool, tmp_path: Path) -> None:
    path = write(tmp_path, *FILES[kind])
    found = read(path, None if told else kind)
    assert found.format == kind
    assert [record.text for record in found.records] == [text for _, text in TEXTS]
    assert found.named == (kind != "text")
    if found.named:
        assert [Path(record.path).stem for record in found.records] == [name for name, _ in TEXTS]


@pytest.mark.parametrize("kind", FILES)
def test_windows_files(kind: str, tmp_path: Path) -> None:
    name, content = FILES[kind]
    found = read(write(tmp_path, name, b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode()))
    assert found.format == kind
    assert [record.text for record in found.records] == [text for _, text in TEXTS]


def test_the_files_of_infer(tmp_path: Path) -> None:
    found = read(write(tmp_path, "hypo.word", "GO ON (None-1)\n (None-0)\n"))
    assert found.format == "trn"
    assert [(record.path, record.text) for record in found.records] == [("None-1", "GO ON"), ("None-0", "")]


def test_nemo(tmp_path: Path) -> None:
    line = '{"audio_filepath": "a/7.wav", "duration": 1.5, "text": "GO ON", "pred_text": "GO"}\n'
    path = write(tmp_path, "manifest.json", line)
    for keys, text in ((("pred_text", "text"), "GO"), (("text",), "GO ON")):
        (record,) = read(path, keys=keys).records
        assert (record.path, record.text) == ("a/7.wav", text)


def test_csv_with_numbers_as_names(tmp_path: Path) -> None:
    (record,) = read(write(tmp_path, "a.csv", 'id,speaker,text\n7,4,"GO, ON"\n')).records
    assert (record.path, record.speaker, record.text, record.line) == ("7", "4", "GO, ON", 2)


def test_comments_of_sclite(tmp_path: Path) -> None:
    assert [record.text for record in read(write(tmp_path, "a.trn", ";; by me\nGO (a)\n")).records] == ["GO"]


def test_an_audio_file_before_a_tab_is_a_name(tmp_path: Path) -> None:
    """The output ``txt`` of ``fairseq_skd.transcribe``, also beside a file without names."""
    path = write(tmp_path, "a.txt", "x y/utt-1.flac\tGO ON\nx y/utt-2.wav\t\n")
    other = write(tmp_path, "b.txt", "GO\n\n")
    found, _ = read_transcripts([Source(path, "x"), Source(other, "y")])
    assert (found.format, found.named_by_file) == ("kaldi", True)
    assert [(record.path, record.text) for record in found.records] == [
        ("x y/utt-1.flac", "GO ON"),
        ("x y/utt-2.wav", ""),
    ]


def test_names_of_the_other_file_tell_kaldi(tmp_path: Path) -> None:
    kaldi = write(tmp_path, "a.txt", "utt-1 GO ON\nutt-3 IT\nother NO\n")
    trn = write(tmp_path, "b.txt", FILES["trn"][1])
    assert [found.format for found in read_transcripts([Source(kaldi, "x"), Source(trn, "y")])] == ["kaldi", "trn"]
    plain = write(tmp_path, "c.txt", "GO ON\n\nIT IS\n")
    assert [found.format for found in read_transcripts([Source(plain, "x"), Source(trn, "y")])] == ["text", "trn"]


@pytest.mark.faults
def test_names_or_words(tmp_path: Path) -> None:
    """Names that count as correct words would lower the WER silently."""
    files = [write(tmp_path, name, f"utt1 {name}\nutt2 GO\n") for name in ("a", "b")]
    options = ("--hyp-format", "--ref-format")
    with pytest.raises(UserError) as refused:
        read_transcripts([Source(*pair) for pair in zip(files, options, strict=True)])
    assert str(refused.value) == (
        f"{files[0]}: each line begins with a word of its own, such as 'utt1', which may name the utterance; add "
        "--hyp-format kaldi and --ref-format kaldi if it does, or --hyp-format text and --ref-format text"
    )
    found = read_transcripts([Source(files[0], options[0], "kaldi"), Source(files[1], options[1])])
    assert [one.format for one in found] == ["kaldi", "kaldi"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a", "", "is empty; write one line per utterance"),
        ("a", b"\xef\xbb\xbf", "is empty"),
        ("a.trn", "\n", "holds no utterances; write one line per utterance"),
        ("a.tsv", "path\ttext\n", "holds no utterances"),
        ("a", b"GO\nCAF\xc9\n", "line 2 is not UTF-8; convert the file to UTF-8"),
        ("a", "GO\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a", "GO\n".encode("utf-16-le"), "line 1 holds a NUL character; convert the file"),
        ("a", "GO\rON\rNO\n", "line 1 holds a carriage return inside"),
        ("a.ctm", "u 1 0.0 0.1 GO\n", "files with times (.ctm) are not read; give a transcript in text, trn,"),
        ("a", "GO (a)\nON (b)\nNO\n", "line 3 does not end in the utterance's name in brackets, as 'GO ON (utt-7)'"),
        ("a.trn", "{ GO / ON } (a)\n", "line 1 holds alternatives { a / b }; choose one of them"),
        ("a.jsonl", "GO ON\n", "line 1 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"path": "a.wav"}\n', "no text among 'path'; give each object its text"),
        ("a.jsonl", '{"path": "a", "text": null}\n', 'line 1: text is null; write a string of words, "" if nothing'),
        ("a.jsonl", '{"path": "a", "text": "\\ud800"}\n', 'line 1: text is "\\ud800"; write a string'),
        ("a.jsonl", '{"path": "a", "text": "A"}\n{"text": "B"}\n', "line 2 has no path; name every utterance, or none"),
        ("a.tsv", "/data\na.flac\t16000\n", "no text among '/data'; name the columns in the first line"),
        ("a.tsv", "path\ttext\na\tGO\tON\n", "line 2 has 3 cells under 2 columns; correct the line"),
    ],
)
def test_files_that_cannot_be_used(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: {sentence}")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); check the path"):
        read(tmp_path / "a")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read(tmp_path)
