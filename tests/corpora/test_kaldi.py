"""Kaldi data folders become manifests, and nothing in them is executed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest
from fairseq_skd.errors import UserError


@pytest.fixture
def data(tone, tmp_path: Path) -> Path:
    """Write ``data/train`` with segments of a long recording, and ``data/test`` without."""
    noise = np.random.default_rng(6).integers(-8000, 8000, 5 * 16000).astype(np.int16)
    tone("long/meeting.wav")
    soundfile.write(tmp_path / "corpus/long/meeting.wav", noise, 16000, subtype="PCM_16")
    tone("short/one.flac")
    files = {
        "train/wav.scp": f"meeting {tmp_path}/corpus/long/meeting.wav\n",
        "train/segments": "ann-1 meeting 0.5 1.75\nbob-1 meeting 2.0 3.5\nann-2 meeting 4.0 -1\n",
        "train/text": "ann-1 GO  ON\nann-2 NO\nbob-1 DON'T SEE\n",
        "train/utt2spk": "ann-1 ann\nann-2 ann\nbob-1 bob\n",
        "test/wav.scp": "one corpus/short/one.flac\n",
        "test/text": "one YES\n",
    }
    for name, text in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    return tmp_path / "data"


def run(*arguments: str | Path) -> None:
    """Run the command in this process."""
    manifest.main(["kaldi", *map(str, arguments)])


def test_folders_become_splits(data: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # Kaldi's paths start from the current folder
    run("data/train", "data/test", "--out", "out")
    out = tmp_path / "out"
    assert (out / "train.tsv").read_text() == (
        f"{out}/audio_segments\ntrain/ann-1.flac\t20000\ntrain/bob-1.flac\t24000\ntrain/ann-2.flac\t16000\n"
    )
    assert (out / "train.wrd").read_text() == "GO ON\nDON'T SEE\nNO\n"
    assert (out / "train.spk").read_text() == "ann\nbob\nann\n"
    assert not (out / "test.spk").exists(), "no utt2spk"
    assert (out / "test.tsv").read_text() == f"{tmp_path}/corpus\nshort/one.flac\t16000\n"
    source, _ = soundfile.read(tmp_path / "corpus/long/meeting.wav", dtype="int16")
    for name, first, stop in (("ann-1", 8000, 28000), ("bob-1", 32000, 56000), ("ann-2", 64000, 80000)):
        wave, _ = soundfile.read(out / f"audio_segments/train/{name}.flac", dtype="int16")
        np.testing.assert_array_equal(wave, source[first:stop])
    assert capsys.readouterr().out.splitlines()[1].split()[3] == "2", "speakers"


def test_audio_root_and_splits(data: Path, tmp_path: Path):
    run(data / "train", data / "test", "--audio-root", tmp_path, "--splits", "valid=test", "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.tsv")} == {"valid.tsv"}


def test_segments_of_another_rate_are_converted(data: Path, tmp_path: Path):
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * 8000) / 8000)
    soundfile.write(tmp_path / "corpus/long/meeting.wav", wave, 8000)
    (data / "train/segments").write_text("ann-1 meeting 0.5 1.75\n")
    (data / "train/text").write_text("ann-1 GO\n")
    with pytest.raises(UserError, match="8000 Hz"):
        run(data / "train", "--out", tmp_path / "out")
    run(data / "train", "--out", tmp_path / "out", "--resample")
    wave, rate = soundfile.read(tmp_path / "out/audio_segments/train/ann-1.flac")
    assert (len(wave), rate) == (20000, 16000)
    expected = 0.3 * np.sin(2 * np.pi * 440 * (0.5 + np.arange(20000) / 16000))
    assert np.abs(wave - expected)[800:-800].max() < 1e-3


def test_nothing_is_executed(data: Path, tmp_path: Path):
    harm = tmp_path / "harm"
    lines = f"meeting touch {harm} |\nother sph2pipe -f wav x.sph |\nark foo.ark:123\nnone\n"
    (data / "train/wav.scp").write_text(lines)
    with pytest.raises(UserError) as caught:
        run(data / "train", "--out", tmp_path / "out")
    assert not harm.exists() and not (tmp_path / "out").exists()
    text = str(caught.value)
    scp = data / "train/wav.scp"
    assert (
        "command instead of a file (2); commands are not executed: run it once and name the file that it makes:" in text
    )
    for line in (
        f"  {scp}:1  meeting  touch {harm} |; uncompressed SPHERE files need no command",
        f"  {scp}:2  other  sph2pipe -f wav x.sph |; uncompressed SPHERE files need no command",
        f"  {scp}:3  ark  foo.ark:123 is an offset in an archive, not a file",
        f"  {scp}:4  none  no path",
    ):
        assert line in text.splitlines()


def test_all_inconsistent_lines_are_listed(data: Path, tmp_path: Path):
    (data / "train/segments").write_text(
        "ann-1 meeting 0.5 1.75\nann-1 meeting 0.5 1\ncid-1 meeting 0 1\n"
        "dan-1 party 0 1\neve-1 meeting 0 x\n../f meeting 0 1\n"
    )
    (data / "train/text").write_text("ann-1 GO\ndan-1 NO\neve-1 NO\n../f NO\ngus-1 NO\n")
    with pytest.raises(UserError) as caught:
        run(data / "train", "--out", tmp_path / "out")
    listed = {line.replace(f"  {data}/train/", "") for line in str(caught.value).splitlines() if line.startswith("  ")}
    assert listed == {
        "segments:2  ann-1  as in line 1",
        "segments:3  cid-1  no line in text",
        "segments:4  dan-1  no recording party in wav.scp",
        "segments:5  eve-1  not a line 'utterance recording start end', in seconds",
        "segments:6  ../f  the utterance's name cannot be a file name",
        "text:5  gus-1  no line in segments",
    }


def test_folders_that_cannot_be_used(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="none/wav.scp: no such file; a Kaldi data folder has wav.scp and text"):
        run(data / "none", "--out", tmp_path / "out")
    (tmp_path / "more/train").mkdir(parents=True)
    with pytest.raises(UserError, match="two folders are named train, which names the split"):
        run(data / "train", tmp_path / "more/train", "--out", tmp_path / "out")
