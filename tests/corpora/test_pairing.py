"""Which hypothesis belongs to which reference, and who speaks."""

import re
from pathlib import Path

import pytest

from fairseq_skd.corpora.pairing import Pairs, find_speakers, pair
from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.transcripts import Transcripts
from fairseq_skd.errors import UserError


def transcripts(name: str, *named: str, files: bool = False, speakers: tuple[str, ...] = ()) -> Transcripts:
    """Records whose texts are their place."""
    records = [
        Record(one, f"T{place}", "", speakers[place] if speakers else "", name, place + 1)
        for place, one in enumerate(named)
    ]
    return Transcripts(Path(name), "jsonl" if any(named) else "text", records, files)


def texts(pairs: Pairs) -> list[tuple[str, str | None, str]]:
    return [
        (name, found and found.text, wanted.text)
        for name, found, wanted in zip(pairs.names, pairs.hypotheses, pairs.references, strict=True)
    ]


def test_by_name_in_any_order() -> None:
    found = pair(transcripts("h", "b", "a"), transcripts("r", "a", "b"))
    assert texts(found) == [("a", "T1", "T0"), ("b", "T0", "T1")]
    assert (found.by, found.missing, found.surplus) == ("name", 0, 0)


def test_by_line() -> None:
    found = pair(transcripts("h", "", ""), transcripts("r", "", ""))
    assert texts(found) == [("line 1", "T0", "T0"), ("line 2", "T1", "T1")]
    assert texts(pair(transcripts("h", "", ""), transcripts("r", "b", "a"), by_line=True))[1] == ("a", "T1", "T1")


def test_a_file_is_named_by_its_stem() -> None:
    files = transcripts("h", "/x/y/b.flac", "a.wav", files=True)
    assert texts(pair(files, transcripts("r", "a", "b"))) == [("a", "T1", "T0"), ("b", "T0", "T1")]


@pytest.mark.faults
def test_equal_stems_take_their_folders() -> None:
    hypotheses = transcripts("h", "/data/s2/1.flac", "/data/s1/1.flac", files=True)
    assert texts(pair(hypotheses, transcripts("r", "s1/1.wav", "s2/1.wav", files=True))) == [
        ("s1/1", "T1", "T0"),
        ("s2/1", "T0", "T1"),
    ]


def test_unmatched_utterances() -> None:
    hypotheses, references = transcripts("h", "a", "x"), transcripts("r", "a", "b", "c")
    with pytest.raises(UserError) as refused:
        pair(hypotheses, references)
    assert str(refused.value) == (
        "h lacks 2 of the 3 utterances of r (b, c), and r lacks 1 of the 2 utterances of h (x); complete the files, or "
        "add --unmatched delete, which counts missing hypotheses as deleted words, or --unmatched skip"
    )
    deleted = pair(hypotheses, references, unmatched="delete")
    assert texts(deleted) == [("a", "T0", "T0"), ("b", None, "T1"), ("c", None, "T2")]
    skipped = pair(hypotheses, references, unmatched="skip")
    assert texts(skipped) == [("a", "T0", "T0")]
    assert skipped[-2:] == deleted[-2:] == (2, 1)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        (
            ["", ""],
            [""],
            "h has 2 utterances, r has 1: to be paired by line, both need the same utterances in the same",
        ),
        (["a"], [""], "r (text) does not name its utterances, h (jsonl) does, as in 'a'; add --by-line if both"),
        ([""], ["a"], "h (text) does not name its utterances, r (jsonl) does"),
        (["a", "b", "a"], ["a", "b"], "h: line 3 names utterance 'a', as line 1 does; keep one of the two lines"),
        (
            ["a"],
            ["b"],
            "h and r share no utterance: names are as 'a' in the one and as 'b' in the other; add --by-line",
        ),
    ],
)
@pytest.mark.parametrize("unmatched", ["refuse", "skip"])
def test_what_cannot_be_paired(hypotheses: list[str], references: list[str], sentence: str, unmatched: str) -> None:
    with pytest.raises(UserError) as refused:
        pair(transcripts("h", *hypotheses), transcripts("r", *references), unmatched=unmatched)
    assert str(refused.value).startswith(sentence)


def pairs(*names: str, **options: tuple[str, ...]) -> Pairs:
    return pair(transcripts("h", *names), transcripts("r", *names, **options))


def speakers_in(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


def test_speakers(tmp_path: Path) -> None:
    known = pairs("19-1-0", "26-1-0", speakers=("ann", "bob"))
    assert find_speakers(known) == ["ann", "bob"]
    assert find_speakers(pairs("19-1-0", "26-1-0")) is None
    assert find_speakers(pairs("a", "b", speakers=("ann", ""))) is None
    assert find_speakers(known, pattern=re.compile("[^-]+")) == ["19", "26"]
    assert find_speakers(pairs("an1-x-b", "an2-y-b"), pattern=re.compile("[^-]+-([^-]+)")) == ["x", "y"]
    mapped = speakers_in(tmp_path, "utt2spk", "26-1-0 y\nmore z\n19-1-0 x\n")
    assert find_speakers(known, mapped) == ["x", "y"]
    listed = speakers_in(tmp_path, "test.spk", "ann\nbob b\ncid\n")
    assert find_speakers(pairs("None-2", "None-0"), listed) == ["cid", "ann"]
    assert find_speakers(pairs("", "", ""), listed) == ["ann", "bob b", "cid"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "content", "names", "sentence"),
    [
        ("utt2spk", "a x y\n", ["a"], "line 1 is 'a x y'; write 'utterance speaker'"),
        ("utt2spk", "a x\na y\n", ["a"], "line 2 gives a another speaker than before; keep one"),
        ("utt2spk", "a x\n", ["a", "b", "c"], "has no speaker for 2 of 3 utterances (b, c); add them"),
        ("utt2spk", "a x\n", ["", ""], "has no speaker for 2 of 2 utterances (line 1, line 2)"),
        ("a.spk", "x\n", ["", ""], "has 1 speakers for 2 utterances, whose names are not places in a manifest"),
        ("a.spk", "x\n", ["a"], "has 1 speakers for 1 utterances, whose names are not places"),
        ("a.spk", "x\ny\n", ["None-2"], "has no speaker in line 3; give the file of the manifest that was decoded"),
    ],
)
def test_speakers_that_cannot_be_used(name: str, content: str, names: list[str], sentence: str, tmp_path: Path) -> None:
    file = speakers_in(tmp_path, name, content)
    with pytest.raises(UserError) as refused:
        find_speakers(pairs(*names), file)
    assert str(refused.value).startswith(f"{file}: {sentence}")


def test_a_pattern_that_finds_no_speaker() -> None:
    with pytest.raises(UserError, match="--speaker-pattern x- finds no speaker in the name 'b'; correct it"):
        find_speakers(pairs("x-a", "b"), pattern=re.compile("x-"))
