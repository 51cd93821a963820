"""NeMo's manifests, and Lhotse's recordings and supervisions as Lhotse 1.33 writes them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest
from fairseq_skd.corpora.records import Segment
from fairseq_skd.corpora.toolkits import read_lhotse, read_nemo
from fairseq_skd.errors import UserError


def write(path: Path, *rows: object) -> Path:
    """Write JSON lines, packed if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.fixture
def nemo(tmp_path: Path) -> Path:
    """A file of 2 s in two segments, and two whole files, one with a rounded duration."""
    noise = np.random.default_rng(2).integers(-8000, 8000, 2 * 16000).astype(np.int16)
    (tmp_path / "nemo/wavs").mkdir(parents=True)
    for name, samples in (("long", 32000), ("b", 16000), ("c", 16100)):
        soundfile.write(tmp_path / f"nemo/wavs/{name}.wav", noise[:samples], 16000, subtype="PCM_16")
    write(
        tmp_path / "nemo/train_manifest.json",
        {"audio_filepath": "wavs/long.wav", "offset": 0.0, "duration": 0.75, "text": "GO", "lang": "en", "speaker": 7},
        {"audio_filepath": "wavs/long.wav", "offset": 0.75, "duration": 1.25, "text": "ON", "lang": "en", "speaker": 8},
        {"audio_filepath": "wavs/b.wav", "duration": 1.0, "text": "NO", "lang": "en-US", "speaker": 8},
        {"audio_filepath": str(tmp_path / "nemo/wavs/c.wav"), "duration": 1.01, "text": "YES", "speaker": 8},
    )
    return tmp_path / "nemo"


def test_nemo(nemo: Path, tmp_path: Path):
    write(nemo / "dev.json", {"audio_filepath": "wavs/b.wav", "offset": None, "duration": None, "text": " GO  ON "})
    manifest.main(["nemo", f"{nemo}/train_manifest.json", f"{nemo}/dev.json", "--out", str(tmp_path / "out")])
    out = tmp_path / "out"
    assert (out / "train.tsv").read_text() == (
        f"{tmp_path}\n"
        "out/audio_segments/train/long-0000000-0000075.flac\t12000\n"
        "out/audio_segments/train/long-0000075-0000200.flac\t20000\n"
        "nemo/wavs/b.wav\t16000\n"
        "nemo/wavs/c.wav\t16100\n"
    )
    wave, _ = soundfile.read(nemo / "wavs/long.wav", dtype="int16")
    cut, _ = soundfile.read(out / "audio_segments/train/long-0000075-0000200.flac", dtype="int16")
    np.testing.assert_array_equal(cut, wave[12000:])
    assert (out / "train.wrd").read_text() == "GO\nON\nNO\nYES\n"
    assert (out / "train.spk").read_text() == "7\n8\n8\n8\n"
    assert (out / "dev.wrd").read_text() == "GO ON\n"
    assert read_nemo([nemo / "train_manifest.json"]).language == "en"


def test_nemo_problems(nemo: Path, tmp_path: Path):
    file = write(
        nemo / "manifest.json",
        {"audio_filepath": "wavs/b.wav", "duration": "1.0", "text": "GO"},
        {"text": "GO"},
        {"audio_filepath": "wavs/gone.wav", "text": "GO"},
        {"audio_filepath": "wavs/b.wav"},
        {"audio_filepath": "wavs/b.wav", "offset": 5, "duration": 1, "text": "GO"},
        '{"audio_filepath": "wavs/b.wav", "offset": NaN, "text": "GO"}',
    )
    with pytest.raises(UserError) as caught:
        manifest.main(["nemo", str(file), "--out", str(tmp_path / "out")])
    listed = str(caught.value)
    assert f"{file}:1  {nemo}/wavs/b.wav  duration is '1.0', not a number of seconds" in listed
    assert f"{file}:2" in listed and "no audio_filepath" in listed
    for kind in ("missing file (1)", "empty transcript (1)", "segment outside its recording (1)"):
        assert kind in listed
    assert "offset is nan, not a number of seconds" in listed and "refused: 6 of 6 rows" in listed
    with pytest.raises(UserError, match="two manifests are named train, which names the split; rename one of them"):
        read_nemo([nemo / "train_manifest.json", nemo / "train.json"])
    with pytest.raises(UserError, match="line 1 is not a JSON object; write one object per line"):
        read_nemo([write(tmp_path / "x.json", "[]")])


def test_nemo_files_of_one_name_in_two_folders(tmp_path: Path):
    rows = [{"audio_filepath": f"{folder}/x.wav", "offset": 1, "text": "GO"} for folder in "ab"]
    records = read_nemo([write(tmp_path / "train.json", *rows, {**rows[0], "lang": "de"}, {**rows[0], "lang": "fr"})])
    assert [record.segment and record.segment.name for record in records.records[:2]] == [
        "a_x-0000100-end",
        "b_x-0000100-end",
    ]
    assert records.language == "de, fr"


@pytest.mark.parametrize(
    ("languages", "why"),
    [
        (("de", "fr"), "names several languages, de, fr; give a code with --language"),
        (("Swahili", None), "names the language 'Swahili'; give a code with --language"),
        (("de-DE", "de-AT"), None),
        (("deu", "German"), None),
    ],
)
def test_languages_of_a_source(nemo: Path, languages: tuple[str, str], why: str | None):
    rows = [
        {"audio_filepath": f"wavs/{name}.wav", "text": "GO", "lang": lang}
        for name, lang in zip("bc", languages, strict=True)
    ]
    write(nemo / "train.json", *rows)
    if why is None:
        assert read_nemo([nemo / "train.json"]).language == "de"
        return
    with pytest.raises(UserError, match=why):
        manifest.main(["nemo", str(nemo / "train.json"), "--out", str(nemo / "out")])
    manifest.main(["nemo", str(nemo / "train.json"), "--out", str(nemo / "out"), "--language", "de"])


def test_times_that_differ_by_rounding_are_one_row(nemo: Path):
    rows = [{"audio_filepath": "wavs/b.wav", "text": "GO", "duration": seconds} for seconds in (1.0, 0.99)]
    write(nemo / "train.json", *rows)
    with pytest.raises(UserError, match="path that occurs twice in a split"):
        manifest.main(["nemo", str(nemo / "train.json"), "--out", str(nemo / "out")])


def recording(name: str, source: str, seconds: float = 2.0, **changes: object) -> dict[str, object]:
    """A recording with one file of one channel, as Lhotse writes it."""
    sources = [{"type": "file", "channels": [0], "source": source}]
    return {
        **{"id": name, "sources": sources, "sampling_rate": 16000, "num_samples": round(16000 * seconds)},
        **{"duration": seconds, "channel_ids": [0], **changes},
    }


def supervision(name: str, of: str, start: float = 0.0, seconds: float = 2.0, **changes: object) -> dict[str, object]:
    """A supervision, as Lhotse writes it."""
    times = {"id": name, "recording_id": of, "start": start, "duration": seconds, "channel": 0}
    return {**times, "text": "GO ON", "language": "English", "speaker": "ann", **changes}


def two_channels(kind: str = "file") -> list[dict[str, object]]:
    return [{"type": kind, "channels": [0, 1], "source": "two.wav"}]


@pytest.fixture
def lhotse(tmp_path: Path) -> Path:
    noise = np.random.default_rng(3).integers(-8000, 8000, (2 * 16000, 2)).astype(np.int16)
    soundfile.write(tmp_path / "one.wav", noise[:, 0], 16000, subtype="PCM_16")
    soundfile.write(tmp_path / "two.wav", noise, 16000, subtype="PCM_16")
    folder = tmp_path / "lhotse"
    write(folder / "libri_recordings_train-clean-5.jsonl.gz", recording("r1", "one.wav"))
    write(
        folder / "libri_supervisions_train-clean-5.jsonl.gz",
        supervision("r1", "r1"),
        supervision("r1/a b", "r1", 0.5, 1.0, text="GO", speaker=None),
    )
    write(folder / "musan_recordings_music.jsonl.gz", recording("m", "m.wav"))
    return folder


def test_lhotse(lhotse: Path, tmp_path: Path, monkeypatch):
    splits = ["--splits", "train=train-clean-5"]
    manifest.main(["lhotse", str(lhotse), "--audio-root", str(tmp_path), "--out", str(tmp_path / "out"), *splits])
    assert (tmp_path / "out/train.tsv").read_text() == (
        f"{tmp_path}\none.wav\t32000\nout/audio_segments/train/r1_a_b.flac\t16000\n"
    )
    assert (tmp_path / "out/train.wrd").read_text() == "GO ON\nGO\n"
    cut, _ = soundfile.read(tmp_path / "out/audio_segments/train/r1_a_b.flac", dtype="int16")
    np.testing.assert_array_equal(cut, soundfile.read(tmp_path / "one.wav", dtype="int16")[0][8000:24000])
    monkeypatch.chdir(tmp_path)  # Lhotse's paths start from the current folder
    corpus = read_lhotse(lhotse)
    assert (corpus.language, corpus.root) == ("en", tmp_path)
    assert [record.split for record in corpus.records] == ["train-clean-5"] * 2


def test_lhotse_channels(lhotse: Path, tmp_path: Path):
    for path in lhotse.iterdir():
        path.unlink()
    array = [{"type": "file", "channels": [number], "source": f"array{number}.wav"} for number in (3, 4)]
    write(
        lhotse / "recordings.jsonl",
        recording("call", "", sources=two_channels(), channel_ids=[0, 1]),
        recording("array", "", sources=array, channel_ids=[3, 4]),
    )
    write(
        lhotse / "supervisions.jsonl",
        supervision("b", "call", channel=1),
        supervision("both", "call", channel=[0, 1]),
        supervision("far", "array", channel=4),
        supervision("far2", "array", channel=[3, 4]),
        supervision("far3", "array", channel=0),
    )
    corpus = read_lhotse(lhotse, audio_root=tmp_path)
    assert [(Path(record.path).name, record.channel, record.segment) for record in corpus.records] == [
        ("two.wav", 1, Segment("b", 0.0, 2.0, 0.1)),
        ("two.wav", None, Segment("both", 0.0, 2.0, 0.1)),
        ("array4.wav", None, Segment("far", 0.0, 2.0, 0.1)),
    ]
    assert [problem.fault.detail for problem in corpus.problems] == [
        "channels [3, 4] are in several files",
        "the recording has no channel 0, only 3, 4",
    ]


def test_lhotse_problems(lhotse: Path, tmp_path: Path):
    write(
        lhotse / "libri_recordings_train-clean-5.jsonl.gz",
        recording("r1", "", sources=two_channels("command")),
        recording("r2", "", sources=two_channels("url")),
        recording("r3", "one.wav", transforms=[{"name": "Speed", "kwargs": {"factor": 0.9}}]),
        recording("r4", "", sources=[{}]),
        recording("r5", "one.wav"),
    )
    names = [supervision(f"s{number}", f"r{number}") for number in range(1, 5)]
    bad = supervision("s7", "r5", seconds=float("nan"))
    del bad["text"]
    write(
        lhotse / "libri_supervisions_train-clean-5.jsonl.gz",
        *(*names, supervision("s5", "r9"), supervision("s6", "r5", start="0"), bad),  # type: ignore[arg-type]
    )
    details = [problem.fault.detail for problem in read_lhotse(lhotse, audio_root=tmp_path).problems]
    assert details == [
        "two.wav in the recordings, line 1",
        "the audio is of type url, not a file: save it as one (line 2 of the recordings)",
        "the recording has transforms, which only Lhotse can apply: save its audio there (line 3 of the recordings)",
        "line 4 of the recordings is not a recording of Lhotse",
        "no recording r9 in libri_recordings_train-clean-5.jsonl.gz",
        "start is '0', not a number of seconds",
        "duration is nan, not a number of seconds",
    ]


def test_lhotse_cuts_and_wrong_folders(lhotse: Path, tmp_path: Path):
    (lhotse / "libri_supervisions_train-clean-5.jsonl.gz").unlink()
    with pytest.raises(UserError, match="holds no PREFIX_recordings_SPLIT.jsonl.gz with PREFIX_supervisions_SPLIT"):
        read_lhotse(lhotse)
    cut = {"id": "c", "start": 0, "duration": 2.0, "channel": 0, "type": "MonoCut"}
    write(lhotse / "libri_cuts_train-clean-5.jsonl.gz", cut)
    with pytest.raises(UserError, match=r"cuts are not read; write recordings and supervisions with 'lhotse cut d"):
        read_lhotse(lhotse)
    write(lhotse / "recordings.jsonl", cut)
    write(lhotse / "supervisions.jsonl")
    with pytest.raises(UserError, match=r"recordings.jsonl: line 1 is a cut, not a recording; write recordings and"):
        read_lhotse(lhotse)
    write(lhotse / "x_recordings.jsonl", recording("r", "one.wav"))
    write(lhotse / "x_supervisions.jsonl", supervision("r", "r"))
    with pytest.raises(UserError, match="is a second list of the split train; keep one corpus in the folder"):
        read_lhotse(lhotse)
    for name in ("recordings", "x_recordings"):
        (lhotse / f"{name}.jsonl").unlink()
    packed = write(lhotse / "libri_supervisions_train-clean-5.jsonl.gz", supervision("r1", "r1")).read_bytes()
    (lhotse / "libri_supervisions_train-clean-5.jsonl.gz").write_bytes(packed[:-12])
    with pytest.raises(UserError, match="cannot be unpacked .*; write or download it again"):
        read_lhotse(lhotse)
