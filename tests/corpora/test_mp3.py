"""MP3: its length is the decoded one, damage is refused, and nothing else is printed."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from fairseq_skd import manifest
from fairseq_skd.corpora.audio import Audio, Cut, extract, inspect
from fairseq_skd.corpora.records import Fault, Kind
from fairseq_skd.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data" / "librispeech_18spk" / "audio"


@pytest.fixture
def root(corpus: Path) -> Path:
    """Add MP3 files of two seconds at 16 and 48 kHz, the second in stereo."""
    noise = np.random.default_rng(6).normal(0, 0.1, (96000, 2))
    soundfile.write(corpus / "a16.mp3", noise[:32000, 0], 16000, format="MP3")
    soundfile.write(corpus / "b48.mp3", noise, 48000, format="MP3")
    return corpus


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)


def run(table: Path, root: Path, out: Path, *options: str) -> None:
    manifest.main(["table", str(table), "--audio-root", str(root), "--out", str(out), *options])


@pytest.mark.parametrize("decode", [False, True])
def test_length_is_what_decoding_yields(root: Path, decode: bool):
    for name, channels in (("a16.mp3", 1), ("b48.mp3", 2)):
        wave, rate = soundfile.read(root / name)
        assert inspect(str(root / name), decode) == Audio(len(wave), rate, channels, mp3=True)


@pytest.mark.faults
def test_damage_is_refused_with_what_the_decoder_said(write_table, root: Path, tmp_path: Path, capfd):
    damage(root / "a16.mp3")
    with pytest.raises(UserError) as refusal:
        run(write_table(("a16.mp3", "GO", "train"), ("a.wav", "ON", "train")), root, tmp_path / "out")
    told = str(refusal.value)
    assert "damaged: decoding ends after" in told and "of 32000 samples (" in told
    assert "M4A, AAC, WMA and video are not: convert them, ffmpeg -i FILE NEW.flac" in told
    assert capfd.readouterr().err == ""


@pytest.mark.faults
@pytest.mark.slow
def test_workers_are_quiet_too(write_table, root: Path, tmp_path: Path, capfd):
    damage(root / "a16.mp3")
    rows = [("a16.mp3", "GO", "train"), ("b48.mp3", "ON", "train"), ("a.wav", "ON", "train")]
    options = ("--jobs", "2", "--skip-bad", "--resample", "--channel", "mean")
    run(write_table(*rows), root, tmp_path / "out", *options)
    assert capfd.readouterr().err == ""
    assert (tmp_path / "out" / "train.wrd").read_text() == "ON\nON\n"


def test_files_without_a_frame(root: Path):
    (root / "junk.mp3").write_bytes(np.random.default_rng(1).bytes(5000))
    found = inspect(str(root / "junk.mp3"))
    assert isinstance(found, Fault) and found.kind is Kind.UNREADABLE and "exist" not in found.detail


def test_16_khz_mp3_stays_unless_audio_is_converted(write_table, root: Path, tmp_path: Path, capsys):
    table = write_table(("a16.mp3", "GO", "train"))
    run(table, root, tmp_path / "kept")
    assert (tmp_path / "kept" / "train.tsv").read_text() == f"{root}\na16.mp3\t32000\n"
    assert "note: 1 utterances stay MP3" in capsys.readouterr().out
    run(table, root, tmp_path / "out", "--resample")
    assert "MP3" not in capsys.readouterr().out
    wave = soundfile.read(root / "a16.mp3")[0]
    flac, rate = soundfile.read(tmp_path / "out" / "audio_16khz" / "a16.mp3.flac")
    assert rate == 16000 and flac == pytest.approx(wave, abs=2**-14)


def test_common_voice_clips(write_table, root: Path, tmp_path: Path):
    """48 kHz, as the release has them."""
    table = write_table(("b48.mp3", "GO", "train"))
    with pytest.raises(UserError, match="add --resample"):
        run(table, root, tmp_path / "out", "--channel", "0")
    run(table, root, tmp_path / "out", "--channel", "0", "--resample")
    assert soundfile.info(tmp_path / "out" / "audio_16khz" / "b48.mp3.channel0.flac").frames == 32000


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the corpus librispeech_18spk beside the checkout")
def test_real_files_are_read_quietly_and_whole(capfd):
    for path in sorted(REAL.glob("*.mp3"))[:20]:
        wave, rate = soundfile.read(path)
        assert inspect(str(path)) == Audio(len(wave), rate, 1, mp3=True)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rate", [16000, 44100])
def test_segments_begin_at_their_sample(tmp_path: Path, rate: int):
    """libsndfile's own seek misses these places by thousands of samples."""
    time = np.arange(20 * rate) / rate
    source = tmp_path / "sweep.mp3"
    soundfile.write(source, 0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time), rate)
    whole, _ = soundfile.read(source)
    parts = [(rate * 5, rate * 6), (5760, 9000), (rate * 5 + 7, rate * 5 + 99), (0, len(whole)), (100, rate * 19)]
    targets = [tmp_path / f"{number}.flac" for number in range(len(parts))]
    cuts = [Cut(*part, str(target)) for part, target in zip(parts, targets, strict=True)]
    lengths = extract(str(source), cuts)
    for (first, stop), target, length in zip(parts, targets, lengths, strict=True):
        expected = whole[first:stop]
        if rate != 16000:
            expected = soxr.resample(expected.astype(np.float32), rate, 16000, quality="VHQ")
        cut, _ = soundfile.read(target)
        assert length == len(cut) == len(expected)
        assert np.abs(cut - expected).max() < 2 / 32768
