"""TED-LIUM's layouts and marks; segments keep every bit of the audio and are cut once."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest
from fairseq_skd.corpora.releases import plain_words, read_stm
from fairseq_skd.errors import UserError

RATE = 16000
TRAIN = """\
;; a comment
TalkOne_2010 1 TalkOne_2010 0.00 1.50 <o,f0,male> it 's the(2) end {NOISE}
TalkOne_2010 1 TalkOne_2010 1.50 2.25 <o,f0,male> ignore_time_segment_in_scoring
TalkOne_2010 1 TalkOne_2010 2.25 3.05 <o,f0,male> get 'em <sil> go
TalkOne_2010 1 TalkOne_2010 3.05 4.00 <o,f0,male> i <unk> you
"""
TEST = "TalkTwo_2011 1 speaker_b 0.50 1.75 <NA> the years ' work\n"


def write_sphere(path: Path, samples: np.ndarray) -> None:
    """Write SPHERE as in the releases: a header of 1024 bytes, then big-endian 16-bit samples."""
    fields = (
        f"sample_count -i {len(samples)}\nsample_n_bytes -i 2\nchannel_count -i 1\nsample_byte_format -s2 10\n"
        f"sample_rate -i {RATE}\nsample_coding -s3 pcm\nend_head\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"NIST_1A\n   1024\n{fields}".encode().ljust(1024) + samples.astype(">i2").tobytes())


@pytest.fixture
def talks() -> dict[str, np.ndarray]:
    """Make the samples of two talks of four seconds."""
    rng = np.random.default_rng(5)
    return {name: rng.integers(-9000, 9000, 4 * RATE) for name in ("TalkOne_2010", "TalkTwo_2011")}


@pytest.fixture
def release2(tmp_path: Path, talks: dict[str, np.ndarray]) -> Path:
    """Write TEDLIUM_release2 with train and test."""
    root = tmp_path / "TEDLIUM_release2"
    for split, talk, text in (("train", "TalkOne_2010", TRAIN), ("test", "TalkTwo_2011", TEST)):
        (root / split / "stm").mkdir(parents=True)
        (root / split / "stm" / f"{talk}.stm").write_text(text)
        write_sphere(root / split / "sph" / f"{talk}.sph", talks[talk])
    return root


@pytest.fixture
def release3(tmp_path: Path, talks: dict[str, np.ndarray]) -> Path:
    """Write TEDLIUM_release-3: legacy splits, and data, whose audio legacy/train shares."""
    root = tmp_path / "TEDLIUM_release-3"
    for folder, talk, text in (
        ("data", "TalkOne_2010", TRAIN),
        ("legacy/train", "TalkOne_2010", TRAIN),
        ("legacy/test", "TalkTwo_2011", TEST),
    ):
        (root / folder / "stm").mkdir(parents=True)
        (root / folder / "stm" / f"{talk}.stm").write_text(text)
    write_sphere(root / "data/sph/TalkOne_2010.sph", talks["TalkOne_2010"])
    write_sphere(root / "legacy/test/sph/TalkTwo_2011.sph", talks["TalkTwo_2011"])
    return root


def run(root: Path, out: Path, *options: str) -> None:
    """Run the command in this process, with the option that lower-case texts need."""
    manifest.main(["tedlium", str(root), "--out", str(out), "--normalize", "upper", *options])


def test_segments_have_the_samples_of_their_times(release2: Path, talks, tmp_path: Path, capsys):
    out = tmp_path / "out"
    run(release2, out)
    assert (out / "train.tsv").read_text() == (
        f"{out}/audio_segments\n"
        "train/TalkOne_2010-0000000-0000150.flac\t24000\n"
        "train/TalkOne_2010-0000225-0000305.flac\t12800\n"
    )
    assert (out / "train.wrd").read_text() == "IT'S THE END\nGET 'EM GO\n"
    assert (out / "test.wrd").read_text() == "THE YEARS' WORK\n"
    assert (out / "train.spk").read_text() == "TalkOne_2010\nTalkOne_2010\n"
    for split, name, talk, first, stop in (
        ("train", "TalkOne_2010-0000225-0000305", "TalkOne_2010", 2.25, 3.05),
        ("test", "TalkTwo_2011-0000050-0000175", "TalkTwo_2011", 0.5, 1.75),
    ):
        wave, rate = soundfile.read(out / "audio_segments" / split / f"{name}.flac", dtype="int16")
        assert rate == RATE
        np.testing.assert_array_equal(wave, talks[talk][round(first * RATE) : round(stop * RATE)])
    printed = capsys.readouterr().out
    for note in (
        "note: 2 apostrophes joined to the previous word: it 's -> it's",
        "note: 1 pronunciation numbers removed: the(2) -> the",
        "note: 2 marks of noises and pauses removed ({NOISE}, <sil>)",
        "note: 1 segments with <unk>, a word that was not transcribed, left out",
        "note: 1 segments marked ignore_time_segment_in_scoring left out",
        "note: --normalize upper changed 3 of 3 transcripts, first",
    ):
        assert note in printed


@pytest.mark.parametrize("above", [False, True])
def test_release_3(release3: Path, tmp_path: Path, above: bool):
    out = tmp_path / "out"
    run(release3.parent if above else release3, out)
    assert {path.name for path in out.glob("*.tsv")} - {"derived_audio.tsv"} == {"train.tsv", "test.tsv"}
    run(release3, out, "--splits", "all=data")
    assert (out / "all.wrd").read_text() == (out / "train.wrd").read_text()
    assert len(list((out / "audio_segments/all").iterdir())) == 2


def test_unknown_words_dropped_if_asked_for(release2: Path, tmp_path: Path):
    run(release2, tmp_path / "out", "--unknown-words", "drop")
    assert (tmp_path / "out/train.wrd").read_text().splitlines()[-1] == "I YOU"


def test_lower_case_is_refused_unless_asked_for(release2: Path, tmp_path: Path):
    with pytest.raises(UserError, match="TED-LIUM is refused\n.*\n.*TalkTwo_2011.stm:1; add --normalize upper"):
        manifest.main(["tedlium", str(release2), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def modified(folder: Path) -> dict[str, int]:
    """Return the time at which each segment was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.flac")}


def test_a_second_run_writes_only_what_is_missing(release2: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "out"
    run(release2, out)
    before = modified(out)
    lost = out / "audio_segments/train/TalkOne_2010-0000225-0000305.flac"
    content = lost.read_bytes()
    lost.unlink()
    made: list[str] = []
    from fairseq_skd.corpora import audio

    original = audio._extract
    monkeypatch.setattr(audio, "_extract", lambda *given: made.append(given[-1].target) or original(*given))
    run(release2, out, "--jobs", "1")
    assert [Path(target).name for target in made] == [lost.name]
    assert lost.read_bytes() == content
    after = modified(out)
    assert {name for name in before if before[name] != after[name]} == {str(lost.relative_to(out))}


def test_a_truncated_file_is_written_again(release2: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(release2, out)
    damaged = out / "audio_segments/test/TalkTwo_2011-0000050-0000175.flac"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-100])
    with pytest.raises(UserError, match="TalkTwo_2011-0000050-0000175.flac exists with other content"):
        run(release2, out)
    run(release2, out, "--force")
    assert damaged.read_bytes() == content


def test_a_source_that_changed_is_cut_again(release2: Path, talks, tmp_path: Path):
    out, sphere = tmp_path / "out", release2 / "test/sph/TalkTwo_2011.sph"
    run(release2, out)
    segment = out / "audio_segments/test/TalkTwo_2011-0000050-0000175.flac"
    write_sphere(sphere, talks["TalkTwo_2011"])  # a younger copy with the same samples
    os.utime(sphere, ns=(1, 1))
    before = segment.stat().st_mtime_ns
    run(release2, out)
    assert segment.stat().st_mtime_ns == before
    write_sphere(sphere, talks["TalkTwo_2011"][::-1])  # the same size, other samples
    os.utime(sphere, ns=(2, 2))
    with pytest.raises(UserError, match="exists with other content; add --force to replace it"):
        run(release2, out)
    run(release2, out, "--force")
    wave, _ = soundfile.read(segment, dtype="int16")
    np.testing.assert_array_equal(wave, talks["TalkTwo_2011"][::-1][8000:28000])


def test_segments_outside_their_recording(release2: Path, tmp_path: Path, capsys):
    lines = ["3.00 4.40 <NA> go on", "3.00 4.60 <NA> go on", "2.00 1.00 <NA> go", "-1.0 1.0 <NA> go"]
    stm = release2 / "test/stm/TalkTwo_2011.stm"
    stm.write_text("".join(f"TalkTwo_2011 1 b {line}\n" for line in lines))
    with pytest.raises(UserError) as caught:
        run(release2, tmp_path / "out")
    listed = [line.split(":")[-1] for line in str(caught.value).splitlines() if line.startswith("  ")]
    place = "test/sph/TalkTwo_2011.sph"
    assert listed == [
        f"2  {place}  3 s to 4.6 s of 4.00 s",
        f"3  {place}  2 s to 1 s of 4.00 s",
        f"4  {place}  -1 s to 1 s of 4.00 s",
    ]
    stm.write_text(f"TalkTwo_2011 1 b {lines[0]}\n")
    run(release2, tmp_path / "out")
    assert "note: 1 segments end up to 0.5 s after their recording" in capsys.readouterr().out
    assert "TalkTwo_2011-0000300-0000440.flac\t16000\n" in (tmp_path / "out/test.tsv").read_text()


def test_shortened_sphere_is_one_sentence(release2: Path, tmp_path: Path):
    sphere = release2 / "test/sph/TalkTwo_2011.sph"
    data = sphere.read_bytes().replace(b"-s3 pcm\nend_head\n", b"-s26 pcm,embedded-shorten-v2.00\nend_head\n", 1)
    sphere.write_bytes(data)
    with pytest.raises(UserError, match="SPHERE compressed with shorten; uncompress it"):
        run(release2, tmp_path / "out")


def test_malformed_lines(tmp_path: Path):
    path = tmp_path / "a.stm"
    path.write_text("talk 1 s 0.0 1.0 <unk> hello\ntalk 1 s zero 1.0 x\ntalk 1 s\ntalk 1 s 0 nan <NA> x\n\n;; end\n")
    marks, problems = read_stm(path)
    assert [(mark.text, mark.line) for mark in marks] == [("<unk> hello", 1)]
    assert [problem.line for problem in problems] == [2, 3, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("i 'm sure they 've said we 'd go", "i'm sure they've said we'd go"),
        ("don 't you 're she 'll", "don't you're she'll"),
        ("the parents ' house", "the parents' house"),
        ("'cause get 'em rock 'n' roll", "'cause get 'em rock 'n' roll"),
        ("'s odd", "'s odd"),
        ("<unk> 's here", "<unk> 's here"),
        ("{BREATH} a(2) <sil> b(13) {UH}", "a b"),
    ],
)
def test_marks_of_the_texts(text: str, words: str):
    assert plain_words(text, Counter()) == words
