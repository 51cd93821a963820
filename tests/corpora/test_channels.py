"""``--channel``: one channel of several, or their mean, as FLAC."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest
from fairseq_skd.corpora.audio import MEAN, Cut, extract
from fairseq_skd.corpora.labels import Labels
from fairseq_skd.corpora.preparation import Options, prepare
from fairseq_skd.corpora.records import Corpus, Record, Segment
from fairseq_skd.errors import UserError

LEFT, RIGHT = np.random.default_rng(4).integers(-32768, 32768, (2, 16000)).astype(np.int16)


@pytest.fixture
def root(corpus: Path) -> Path:
    soundfile.write(corpus / "two.wav", np.stack([LEFT, RIGHT], axis=1), 16000)
    return corpus


def run(table: Path, root: Path, out: Path, *options: str) -> None:
    manifest.main(["table", str(table), "--audio-root", str(root), "--out", str(out), *options])


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


@pytest.mark.parametrize(
    ("channel", "name", "wave"),
    [
        ("0", "two.wav.channel0.flac", LEFT),
        ("1", "two.wav.channel1.flac", RIGHT),
        ("mean", "two.wav.flac", np.rint((LEFT.astype(float) + RIGHT) / 2)),
    ],
)
def test_one_channel_sample_by_sample(write_table, root: Path, tmp_path: Path, channel, name, wave):
    rows = [("two.wav", "GO", "train")] + [("a.wav", "ON", "train")] * (channel != "1")
    run(write_table(*rows), root, tmp_path / "out", "--channel", channel)
    assert np.array_equal(read(tmp_path / "out" / "audio_16khz" / name), wave)
    lines = (tmp_path / "out" / "train.tsv").read_text().splitlines()[1:]
    assert [line.split("/")[-1] for line in lines] == [f"{name}\t16000", "a.wav\t16000"][: len(rows)]  # mono stays


def test_without_the_option_the_complaint_names_it(write_table, root: Path, tmp_path: Path):
    with pytest.raises(UserError, match="more than one channel .1.; add --channel mean, or --channel 0 for the first"):
        run(write_table(("two.wav", "GO", "train")), root, tmp_path / "out")


def test_a_channel_that_a_file_has_not(write_table, root: Path, tmp_path: Path):
    table = write_table(("two.wav", "GO", "train"), ("a.wav", "ON", "train"))
    with pytest.raises(UserError) as refusal:
        run(table, root, tmp_path / "out", "--channel", "2")
    told = str(refusal.value)
    assert "channel that the file does not have (2)" in told
    assert "two.wav  channel 2 of 2\n" in told and "a.wav  channel 2 of 1\n" in told


@pytest.mark.parametrize("channel", ["left", "-1", "1.5", ""])
def test_channels_that_are_none(channel: str, capsys):
    with pytest.raises(SystemExit):
        manifest.main(["table", "t.tsv", "--audio-root", ".", "--out", "out", f"--channel={channel}"])
    assert f"give mean, or a channel's number from 0, not {channel!r}" in capsys.readouterr().err


def test_the_record_wins_and_two_channels_are_two_files(root: Path, tmp_path: Path):
    """As Lhotse's supervisions of a telephone call; no option is needed."""
    records = [
        Record("two.wav", "GO", "train", "a", "setup.cfg", 1, None, 0),
        Record("two.wav", "ON", "train", "b", "setup.cfg", 2, None, 1),
        Record("two.wav", "SO", "train", "b", "setup.cfg", 3, Segment("part", 0.25, 0.75), 1),
    ]
    for channel in (None, MEAN, 0):
        out = tmp_path / f"out{channel}"
        prepare(Corpus("setup.cfg", records, [], root), out, Options(channel=channel, labels=Labels()))
        lines = (out / "train.tsv").read_text().splitlines()
        waves = [read(Path(lines[0], line.split("\t")[0])) for line in lines[1:]]
        assert all(map(np.array_equal, waves, [LEFT, RIGHT, RIGHT[4000:12000]]))


def test_one_channel_twice_is_a_duplicate(root: Path, tmp_path: Path):
    records = [Record("two.wav", "GO", "train", "a", "setup.cfg", line, None, 0) for line in (1, 2)]
    with pytest.raises(UserError, match="as in setup.cfg:1"):
        prepare(Corpus("setup.cfg", records, [], root), tmp_path / "out", Options())


@pytest.mark.faults
def test_a_later_run_notices_another_channel(root: Path, tmp_path: Path):
    """The file of a segment has the same name for all channels."""
    out = tmp_path / "out"
    record = Record("two.wav", "GO", "train", "a", "setup.cfg", 1, Segment("part", 0, 0.5))
    calls = Corpus("setup.cfg", [record], [], root)
    file = out / "audio_segments" / "train" / "part.flac"
    prepare(calls, out, Options(channel=1))
    assert np.array_equal(read(file), RIGHT[:8000])
    with pytest.raises(UserError, match="exists with other content; add --force"):
        prepare(calls, out, Options(channel=0))
    prepare(calls, out, Options(channel=0, force=True))
    assert np.array_equal(read(file), LEFT[:8000])


def test_notes_of_earlier_versions_hold(write_table, root: Path, tmp_path: Path):
    """They have no column channel."""
    out, table = tmp_path / "out", write_table(("eight.wav", "GO", "train"))
    run(table, root, out, "--resample")
    notes, file = out / "derived_audio.tsv", out / "audio_16khz" / "eight.wav.flac"
    new = notes.read_text()
    notes.write_text("".join(line.rpartition("\t")[0] + "\n" for line in new.splitlines()))
    file.write_bytes(bytes(file.stat().st_size))  # of the same size: kept if the note holds
    run(table, root, out, "--resample")
    assert not any(file.read_bytes()) and notes.read_text() == new


def test_mean_of_floats_is_not_clipped_before_it_is_taken(tmp_path: Path):
    loud = np.array([[1.5, -0.5]] * 1600, dtype=np.float32)
    soundfile.write(tmp_path / "loud.wav", loud, 16000, subtype="FLOAT")
    assert extract(str(tmp_path / "loud.wav"), [Cut(0, 1600, str(tmp_path / "mean.flac"), MEAN)]) == [1600]
    assert soundfile.read(tmp_path / "mean.flac")[0] == pytest.approx(0.5, abs=2**-14)


def test_mean_at_another_rate(tmp_path: Path):
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    soundfile.write(tmp_path / "t.wav", np.stack([tone, tone / 2], axis=1), 8000)
    assert extract(str(tmp_path / "t.wav"), [Cut(0, 8000, str(tmp_path / "mean.flac"), MEAN)]) == [16000]
    wave = soundfile.read(tmp_path / "mean.flac")[0]
    assert wave.ndim == 1 and np.abs(wave[4000:12000]).max() == pytest.approx(0.3, abs=0.002)
