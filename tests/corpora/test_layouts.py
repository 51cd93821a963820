"""Layouts by name, each with the file forms of the public release; bad rows and wrong folders."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from fairseq_skd import manifest
from fairseq_skd.corpora.layouts import LAYOUTS, read_audio, read_audiofolder, read_layout
from fairseq_skd.errors import UserError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, *lines)`` writes a file below ``corpus``."""

    def make(name: str, *lines: str) -> Path:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return make


def run(source: str, root: Path, out: Path, *options: str) -> None:
    """Run the command in this process."""
    manifest.main([source, str(root), "--out", str(out), *options])


def paths(manifest_file: Path) -> list[str]:
    return [line.split("\t")[0] for line in manifest_file.read_text().splitlines()[1:]]


@pytest.fixture
def commonvoice(tone, write: Write, tmp_path: Path) -> Path:
    """A German part in the form of release 17; sentences are not quoted."""
    header = "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale"
    for number, split in enumerate(("train", "dev", "test", "validated")):
        tone(f"cv/de/clips/common_voice_de_{number}.mp3", 48000, 48000)
        cells = (
            f"c{number}",
            f"common_voice_de_{number}.mp3",
            "1f",
            'SIE SAGTE "JA',
            "",
            "2",
            "0",
            "",
            "",
            "",
            "",
            "de",
        )
        write(f"cv/de/{split}.tsv", "\t".join([*header.split(), "segment"]), "\t".join([*cells, ""]))
    return tmp_path / "corpus/cv"


def test_common_voice(commonvoice: Path):
    for root in (commonvoice, commonvoice / "de", commonvoice.parent):
        corpus = read_layout(LAYOUTS["commonvoice"], root)
        assert [(r.path, r.text, r.split, r.speaker, r.line) for r in corpus.records] == [
            (f"clips/common_voice_de_{number}.mp3", 'SIE SAGTE "JA', split, f"c{number}", 2)
            for number, split in enumerate(("train", "dev", "test"))
        ]
        assert (corpus.language, corpus.root, corpus.problems) == ("de", commonvoice / "de", [])
    corpus = read_layout(LAYOUTS["commonvoice"], commonvoice, ["train=train+validated"])
    assert [record.speaker for record in corpus.records] == ["c0", "c3"]


def test_common_voice_is_written(commonvoice: Path, tmp_path: Path):
    run("commonvoice", commonvoice, tmp_path / "out", "--resample", "--normalize", "punctuation")
    assert (tmp_path / "out/dev.tsv").read_text() == (
        f"{tmp_path}/out/audio_16khz\nclips/common_voice_de_1.mp3.flac\t16000\n"
    )
    assert (tmp_path / "out/dev.wrd").read_text() == "SIE SAGTE JA\n"
    assert (tmp_path / "out/dev.spk").read_text() == "c1\n"


def test_common_voice_bad_rows(commonvoice: Path, tmp_path: Path):
    with open(commonvoice / "de/dev.tsv", "a") as file:
        file.write("c9\tgone.mp3\t1\tJA" + "\t" * 8 + "de\t\n" + "c9\tcommon_voice_de_0.mp3\t1\t" + "\t" * 8 + "de\t\n")
        file.write("c9\tshort.mp3\tJA\n")
    with pytest.raises(UserError) as caught:
        run("commonvoice", commonvoice, tmp_path / "out", "--resample", "--normalize", "punctuation")
    listed = str(caught.value)
    table = commonvoice / "de/dev.tsv"
    assert f"\n  {table}:3  clips/gone.mp3" in listed and "missing file (1)" in listed
    assert f"\n  {table}:4  clips/common_voice_de_0.mp3" in listed and "empty transcript (1)" in listed
    assert f"\n  {table}:5  short.mp3  3 cells under 13 columns" in listed
    assert "refused: 3 of 6 rows" in listed


def test_two_languages_and_a_wrong_folder(commonvoice: Path, tmp_path: Path):
    (commonvoice / "fr/clips").mkdir(parents=True)
    (commonvoice / "fr/train.tsv").touch()
    with pytest.raises(UserError, match=r"cv: holds 2 corpora, de, fr; give one of these folders"):
        read_layout(LAYOUTS["commonvoice"], commonvoice)
    with pytest.raises(UserError, match=r"de: is not FLEURS; give the folder with train.tsv, dev.tsv, test.tsv and a"):
        read_layout(LAYOUTS["fleurs"], commonvoice / "de")
    with pytest.raises(UserError, match="none: no such folder; give the folder with metadata.csv and wavs/"):
        read_layout(LAYOUTS["ljspeech"], tmp_path / "none")


def test_a_table_without_the_column(commonvoice: Path):
    (commonvoice / "de/train.tsv").write_text("client_id\tpath\ttext\na\tb.mp3\tJA\n")
    with pytest.raises(UserError, match="no column sentence among 'client_id', 'path', 'text', as Common Voice has"):
        read_layout(LAYOUTS["commonvoice"], commonvoice)


def test_ljspeech(tone, write: Write, tmp_path: Path):
    tone("LJSpeech-1.1/wavs/LJ001-0001.wav", 22050, 22050)
    tone("LJSpeech-1.1/wavs/LJ001-0002.wav", 22050, 22050)
    table = write("LJSpeech-1.1/metadata.csv", 'LJ001-0001|IN 14 "X|IN FOURTEEN', "LJ001-0002|GO ON")
    run("ljspeech", tmp_path / "corpus/LJSpeech-1.1", tmp_path / "out", "--resample")
    assert paths(tmp_path / "out/train.tsv") == ["wavs/LJ001-0001.wav.flac", "wavs/LJ001-0002.wav.flac"]
    assert (tmp_path / "out/train.wrd").read_text() == "IN FOURTEEN\nGO ON\n"
    write("LJSpeech-1.1/metadata.csv", "LJ001-0001|GO", "LJ001-0002|", "LJ9|GO", "LJ001-0002", "|GO")
    with pytest.raises(UserError) as caught:
        run("ljspeech", tmp_path / "corpus/LJSpeech-1.1", tmp_path / "out2", "--resample")
    for line in ("2  wavs/LJ001-0002.wav", "3  wavs/LJ9.wav", "4  LJ001-0002  1 cells under 2 columns"):
        assert f"\n  {table}:{line}" in str(caught.value)
    assert read_layout(LAYOUTS["ljspeech"], tmp_path / "corpus").language == ""


@pytest.mark.parametrize(("name", "suffix"), [("mls_german", "flac"), ("mls_polish_opus", "opus")])
def test_mls(write: Write, tmp_path: Path, name: str, suffix: str):
    for split in ("train", "dev"):
        write(f"{name}/{split}/transcripts.txt", "10148_10119_000000\tGO ON")
        path = write(f"{name}/{split}/audio/10148/10119/10148_10119_000000.{suffix}")
        with open(path, "wb") as file:
            options = ("OGG", "OPUS") if suffix == "opus" else ("FLAC", "PCM_16")
            soundfile.write(file, [0.1, -0.1] * 8000, 16000, format=options[0], subtype=options[1])
    write(f"{name}/train/limited_supervision/9hr/handles.txt", "10148_10119_000000")
    run("mls", tmp_path / "corpus", tmp_path / "out")
    assert paths(tmp_path / "out/dev.tsv") == [f"dev/audio/10148/10119/10148_10119_000000.{suffix}"]
    assert (tmp_path / "out/dev.spk").read_text() == "10148\n"
    assert read_layout(LAYOUTS["mls"], tmp_path / "corpus").language == {"flac": "de", "opus": "pl"}[suffix]
    write(f"{name}/dev/transcripts.txt", "10148_10119_000001\tGO", "10148_10119_000000\t")
    with pytest.raises(UserError, match=r"refused: 2 of 3 rows \(missing file 1, empty transcript 1\)"):
        run("mls", tmp_path / "corpus", tmp_path / "out2")


@pytest.mark.parametrize("folder", ["audio/", ""])
def test_fleurs(tone, write: Write, tmp_path: Path, folder: str):
    for split in ("train", "test"):
        tone(f"de_de/{folder}{split}/7.wav")
        write(f"de_de/{split}.tsv", '1\t7.wav\t"Go," on.\tGO ON\tG O | O N |\t16000\tMALE')
    run("fleurs", tmp_path / "corpus/de_de", tmp_path / "out")
    assert paths(tmp_path / "out/test.tsv") == [f"{folder}test/7.wav"]
    assert (tmp_path / "out/test.wrd").read_text() == "GO ON\n"
    assert not (tmp_path / "out/test.spk").exists()
    assert read_layout(LAYOUTS["fleurs"], tmp_path / "corpus").language == "de-DE"
    write("de_de/test.tsv", "1\t8.wav\tGo\tGO\tG O |\t16000\tMALE", "2\t7.wav\tGo\tGO")
    with pytest.raises(UserError) as caught:
        run("fleurs", tmp_path / "corpus/de_de", tmp_path / "out2")
    assert "test.tsv:2  7.wav  4 cells under 7 columns" in str(caught.value) and "missing file (1)" in str(caught.value)


def test_audiofolder_with_metadata_per_split(tone, write: Write, tmp_path: Path):
    for split in ("train", "validation"):
        tone(f"data/{split}/a.wav")
        write(f"data/{split}/metadata.csv", "file_name,speaker_id,transcription", 'a.wav,s1,"GO ON"')
    run("audiofolder", tmp_path / "corpus", tmp_path / "out", "--splits", "train", "valid=validation")
    assert paths(tmp_path / "out/valid.tsv") == ["data/validation/a.wav"]
    assert (tmp_path / "out/valid.spk").read_text() == "s1\n"


def test_audiofolder_with_metadata_above(tone, write: Write, tmp_path: Path):
    for name in ("test/a.wav", "b.wav"):
        tone(name)
    rows: list[dict[str, object]] = [{"file_name": "test/a.wav", "sentence": "GO"}, {"file_name": "b.wav"}]
    table = write("metadata.jsonl", *map(json.dumps, [*rows, {"sentence": "GO"}, {"file_name": 3}]))
    corpus = read_audiofolder(tmp_path / "corpus")
    assert [(r.path, r.split, r.text) for r in corpus.records] == [("test/a.wav", "test", "GO"), ("b.wav", "train", "")]
    assert [str(problem) for problem in corpus.problems] == [
        f"{table}:3  no file_name",
        f"{table}:4  file_name is not a string but 3",
    ]
    assert [problem.line for problem in read_audiofolder(tmp_path / "corpus", ["test"]).problems] == []


def test_audiofolder_that_is_none(write: Write, tmp_path: Path):
    root = tmp_path / "corpus"
    root.mkdir()
    with pytest.raises(UserError, match="holds no metadata.csv or metadata.jsonl; give the folder of the data set"):
        read_audiofolder(root)
    write("data/train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="Parquet files are not read; write metadata.csv or .jsonl, and audio files"):
        read_audiofolder(root)
    write("metadata.csv", "file_name,label", "a.wav,dog")
    with pytest.raises(UserError, match="no column text among 'file_name', 'label'; the columns are file_name and"):
        read_audiofolder(root)
    write("metadata.jsonl")
    with pytest.raises(UserError, match="there is also metadata.jsonl in this folder; remove one of the two"):
        read_audiofolder(root)


def test_audio_alone(tone, write: Write, tmp_path: Path, capsys):
    for name in ("b.wav", "deep/a.FLAC", "deep/.hidden.wav", ".hidden/c.wav"):
        tone(name)
    tone("eight.wav", 8000, 8000)
    write("notes.txt", "GO")
    root = tmp_path / "corpus"
    (root / "deep/loop").symlink_to(root)
    with pytest.raises(UserError, match="sampling rate other than 16000 Hz .*\n  8000 Hz  once, in .*eight.wav"):
        run("audio", root, tmp_path / "out")
    for _ in range(2):  # the second time, the converted file lies under the folder, too
        run("audio", root, root / "out", "--resample", "--split", "pool")
        assert {path.name for path in (root / "out").iterdir()} == {"pool.tsv", "audio_16khz", "derived_audio.tsv"}
        assert paths(root / "out/pool.tsv") == ["b.wav", "deep/a.FLAC", "out/audio_16khz/eight.wav.flac"]
        assert capsys.readouterr().out.split()[:8] == [
            "split",
            "utterances",
            "hours",
            "speakers",
            "pool",
            "3",
            "0.001",
            "-",
        ]


@pytest.mark.parametrize(
    ("folder", "text", "spelt"), [("cmn_hans_cn", "你好", "你好"), ("pt_br", "dia 16", "dia dezesseis")]
)
def test_fleurs_folders_name_language_and_region(
    tone, write: Write, tmp_path: Path, folder: str, text: str, spelt: str
):
    tone(f"{folder}/audio/train/7.wav")
    write(f"{folder}/train.tsv", f"1\t7.wav\t{text}\t{text}\t\t16000\tMALE")
    run("fleurs", tmp_path / "corpus" / folder, tmp_path / "out", "--normalize", "digits")
    assert (tmp_path / "out/train.wrd").read_text() == f"{spelt}\n"


def test_a_folder_above_an_audio_folder_is_no_split(tone, write: Write, tmp_path: Path):
    tone("dev/set/a.wav")
    row = {"file_name": str(tmp_path / "corpus/dev/set/a.wav"), "text": "GO"}
    write("dev/set/metadata.jsonl", json.dumps(row))
    (record,) = read_audiofolder(tmp_path / "corpus/dev/set").records
    assert (record.path, record.split) == ("a.wav", "train")


def test_audio_refuses_what_needs_transcripts(tone, write: Write, tmp_path: Path):
    tone("b.wav")
    root = tmp_path / "corpus"
    for options in (["--unit", "ltr"], ["--dict", "x"], ["--normalize", "upper"], ["--lexicon"], ["--vocab-size", "5"]):
        with pytest.raises(UserError, match=f"^{options[0]} is about transcripts, but audio has none; drop it$"):
            run("audio", root, tmp_path / "out", *options)
    write("../out/train.ltr", "G O |")
    with pytest.raises(UserError, match="train.ltr holds the transcripts of an earlier manifest, but train now has"):
        run("audio", root, tmp_path / "out", "--force")
    with pytest.raises(UserError, match="holds no audio"):
        read_audio(tmp_path / "out", "train")
