"""``--hold-out``: a validation split by speaker, which stays when data grow."""

from pathlib import Path

import pytest

from fairseq_skd import manifest
from fairseq_skd.corpora.holdout import HeldOut, hold_out, place
from fairseq_skd.corpora.records import Record, Segment
from fairseq_skd.errors import UserError


def record(speaker: str, path: str = "a.wav", split: str = "train", segment: Segment | None = None) -> Record:
    return Record(path, "GO", split, speaker, "table.tsv", 2, segment)


def held(records: list[Record], fraction: float) -> set[tuple[str, str]]:
    """Return speaker and path of what is in valid."""
    moved, _ = hold_out(records, fraction)
    assert [one._replace(split="") for one in moved] == [one._replace(split="") for one in records]
    return {(one.speaker, one.path) for one in moved if one.split == "valid"}


# The first 12 digits of `printf NAME | sha256sum`.
@pytest.mark.parametrize(
    ("name", "digits"), [("anna", "55579b557896"), ("bert", "32987c4b7a9f"), ("s1", "e8bc163c82ee")]
)
def test_hash_against_sha256sum(name: str, digits: str):
    assert place(name) == int(digits, 16) / 16**12


def test_a_speaker_is_held_out_below_the_fraction():
    records = [record("anna"), record("bert"), record("s1"), record("bert", "b.wav"), record("s2", split="test")]
    assert held(records, 0.25) == {("bert", "a.wav"), ("bert", "b.wav")}
    assert {speaker for speaker, _ in held(records, 0.5)} == {"anna", "bert"}
    assert hold_out(records, 0.25)[1] == HeldOut("train", 1, 3, "speakers")


def test_growing_data_keep_everybody():
    names = [f"speaker {number}" for number in range(400)]
    small = {one for one, _ in held([record(name) for name in names[:100]], 0.1)}
    large = {one for one, _ in held([record(name) for name in reversed(names)], 0.1)}
    assert small == large & set(names[:100])
    assert 20 < len(large) < 60  # 40 expected, standard deviation 6


@pytest.mark.parametrize("speaker", ["", "anna"])
def test_without_two_speakers_it_goes_by_recording(speaker: str):
    paths = [f"{number}.wav" for number in range(20)]
    records = [record(speaker, path, segment=Segment(f"{path}{n}", n, n + 1.0)) for path in paths for n in (0, 1)]
    found = {path for _, path in held(records, 0.3)}
    assert found == {path for path in paths if place(path) < 0.3}
    assert {path for _, path in held([one._replace(path=f"x/../{one.path}") for one in records], 0.3)} == {
        f"x/../{path}" for path in found
    }
    assert hold_out(records, 0.3)[1] == HeldOut("train", len(found), 20, "recordings")


def test_utterances_without_a_speaker_go_by_recording():
    records = [record("anna"), record("bert"), *(record("", f"{number}.wav") for number in range(20))]
    loose = {("", f"{number}.wav") for number in range(20) if place(f"{number}.wav") < 0.25}
    assert held(records, 0.25) == {("bert", "a.wav"), *loose}
    assert hold_out(records, 0.25)[1] == HeldOut("train", 1, 2, "speakers", 20)


@pytest.mark.parametrize(
    ("splits", "complaint"),
    [
        (("train", "valid"), "--hold-out makes a split valid, but there is one already; leave the option out"),
        (("train-a", "train-b"), "--hold-out needs one training split, not train-a, train-b; call it train"),
        (("dev", "test"), "--hold-out needs one training split, not dev, test; call it train"),
        ((), "--hold-out needs one training split, not none; call it train"),
    ],
)
def test_splits_that_it_cannot_take_from(splits, complaint: str):
    with pytest.raises(UserError) as refusal:
        hold_out([record("anna", split=split) for split in splits], 0.5)
    assert str(refusal.value) == complaint


@pytest.mark.parametrize("splits", [("train", "train-b"), ("train-a", "dev"), ("all",)])
def test_the_training_split(splits):
    records = [record(name, split=split) for split in splits for name in ("anna", "bert")]
    assert hold_out(records, 0.25)[1].origin == splits[0]


def test_nobody_and_everybody():
    records = [record("anna"), record("bert"), record("s1")]
    with pytest.raises(UserError) as refusal:
        hold_out(records, 0.05)
    assert str(refusal.value) == (
        "--hold-out 0.05: none of the 3 speakers of train falls below it; the smallest fraction that holds out one "
        "is 0.1977"
    )
    assert {name for name, _ in held(records, 0.1977)} == {"bert"}
    with pytest.raises(UserError, match="0.95 holds out all 3 speakers of train; give a smaller fraction"):
        hold_out(records, 0.95)
    with pytest.raises(UserError, match="only one recording"):
        hold_out([record("anna")], 0.5)


@pytest.mark.parametrize("fraction", ["0", "1", "5", "nan", "-0.1", "5%"])
def test_fractions_that_are_none(fraction: str, capsys):
    with pytest.raises(SystemExit):
        manifest.main(["table", "t.tsv", "--audio-root", ".", "--out", "out", "--hold-out", fraction])
    assert f"give a fraction above 0 and below 1, such as 0.05, not '{fraction}'" in capsys.readouterr().err


def test_the_command_writes_both_splits_and_tells(write_table, corpus: Path, tmp_path: Path, capsys):
    rows = [("a.wav", "GO", "train", "anna"), ("deep/b.flac", "ON", "train", "bert"), ("c:1.ogg", "SO", "train", "")]
    table = write_table(*rows, header=("path", "text", "split", "speaker"))
    manifest.main(
        ["table", str(table), "--audio-root", str(corpus), "--out", str(tmp_path / "out"), "--hold-out", ".2"]
    )
    assert (tmp_path / "out" / "valid.wrd").read_text() == "ON\n"
    assert (tmp_path / "out" / "train.wrd").read_text() == "GO\nSO\n"
    printed = capsys.readouterr().out
    assert "note: valid holds out 1 of 2 speakers of train: 1 utterances, 0.000 hours\n" in printed
    assert "note: 1 utterances of train had no speaker, so they went by recording\n" in printed
