"""LibriSpeech's layout: SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt beside FLAC files."""

from pathlib import Path

import pytest

from fairseq_skd import manifest
from fairseq_skd.errors import UserError


@pytest.fixture
def root(tone, tmp_path: Path) -> Path:
    """Write two train splits, a dev split, and another file of a release."""
    chapters = {
        "train-clean-100/19/198": ["NORTHANGER ABBEY", "THIS LITTLE WORK"],
        "train-clean-100/103/1240": ["CHAPTER ONE"],
        "train-clean-360/14/208": ["HE'D GONE"],
        "dev-clean/84/121123": ["GO"],
    }
    for chapter, texts in chapters.items():
        speaker, number = chapter.split("/")[1:]
        names = [f"{speaker}-{number}-{index:04d}" for index in range(len(texts))]
        for index, name in enumerate(names):
            tone(f"LibriSpeech/{chapter}/{name}.flac", 16000 + index)
        lines = "".join(f"{name} {text}\n" for name, text in zip(names, texts, strict=True))
        (tmp_path / "corpus/LibriSpeech" / chapter / f"{speaker}-{number}.trans.txt").write_text(lines)
    (tmp_path / "corpus/LibriSpeech/SPEAKERS.TXT").write_text("19 | F | train-clean-100\n")
    return tmp_path / "corpus/LibriSpeech"


def run(root: Path, out: Path, *options: str) -> None:
    """Run the command in this process."""
    manifest.main(["librispeech", str(root), "--out", str(out), *options])


@pytest.mark.parametrize("above", [False, True])
def test_all_splits_under_their_names(root: Path, tmp_path: Path, above: bool, capsys):
    run(root.parent if above else root, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    splits = ("train-clean-100", "train-clean-360", "dev-clean")
    assert written == {
        "dict.ltr.txt",
        *(f"{split}.{kind}" for split in splits for kind in ("tsv", "ltr", "wrd", "spk")),
    }
    assert (tmp_path / "out/train-clean-100.tsv").read_text() == (
        f"{root}\n"
        "train-clean-100/103/1240/103-1240-0000.flac\t16000\n"
        "train-clean-100/19/198/19-198-0000.flac\t16000\n"
        "train-clean-100/19/198/19-198-0001.flac\t16001\n"
    )
    assert (tmp_path / "out/train-clean-100.wrd").read_text() == "CHAPTER ONE\nNORTHANGER ABBEY\nTHIS LITTLE WORK\n"
    assert (tmp_path / "out/train-clean-100.spk").read_text() == "103\n19\n19\n"
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train-clean-100"))
    assert row.split() == ["train-clean-100", "3", "0.001", "2", "7", "39"]


def test_splits_chosen_renamed_and_merged(root: Path, tmp_path: Path):
    run(root, tmp_path / "out", "--splits", "train=train-clean-360+train-clean-100", "dev-clean")
    assert {path.stem for path in (tmp_path / "out").glob("*.tsv")} == {"train", "dev-clean"}
    assert (tmp_path / "out/train.wrd").read_text().splitlines()[:2] == ["HE'D GONE", "CHAPTER ONE"]
    assert (tmp_path / "out/train.spk").read_text().splitlines()[1:] == ["103", "19", "19"]


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        (["test-clean"], "there is no split 'test-clean'; choose from dev-clean, train-clean-100, train-clean-360"),
        (["a=dev-clean+x"], "there is no split 'x'"),
        (["a=dev-clean", "a=train-clean-100"], "a is given twice; write a=one\\+other to merge"),
        (["../a=dev-clean"], "'../a' is not a file name of letters"),
        (["=dev-clean"], "'' is not a file name of letters"),
    ],
)
def test_splits_that_cannot_be_chosen(root: Path, tmp_path: Path, splits: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        run(root, tmp_path / "out", "--splits", *splits)


def test_audio_and_lines_without_a_partner_are_listed(root: Path, tmp_path: Path):
    chapter = root / "train-clean-100/19/198"
    (chapter / "19-198-0001.flac").rename(chapter / "19-198-0007.flac")
    (root / "dev-clean/84/121123/84-121123.trans.txt").rename(root / "other.txt")
    with pytest.raises(UserError) as caught:
        run(root, tmp_path / "out", "--splits", "train-clean-100")
    assert str(caught.value).splitlines() == [
        "LibriSpeech is refused",
        "missing file (1); correct the path, or the folder that it starts from:",
        f"  {chapter}/19-198.trans.txt:2  train-clean-100/19/198/19-198-0001.flac  "
        f"looked for {chapter}/19-198-0001.flac",
        "utterance without audio or transcript (1); add what is missing, or remove the rest:",
        f"  {chapter}/19-198.trans.txt:1  train-clean-100/19/198/19-198-0007.flac  no line of transcript",
        "refused: 2 of 4 rows (missing file 1, utterance without audio or transcript 1); nothing was written; "
        "--skip-bad leaves these rows out",
    ]
    assert not (tmp_path / "out").exists()


def test_a_chapter_without_transcripts_is_reported(root: Path, tmp_path: Path):
    (root / "train-clean-100/19/198/19-198.trans.txt").unlink()
    with pytest.raises(UserError, match="198  no 19-198.trans.txt for 2 audio files"):
        run(root, tmp_path / "out")


def test_a_folder_without_splits(root: Path, tmp_path: Path):
    with pytest.raises(UserError, match="train-clean-100: holds no split of LibriSpeech.*; give the folder above"):
        run(root / "train-clean-100", tmp_path / "out")
    with pytest.raises(UserError, match="none: no such folder"):
        run(root / "none", tmp_path / "out")


def test_transcripts_in_another_encoding(root: Path, tmp_path: Path):
    path = root / "train-clean-100/103/1240/103-1240.trans.txt"
    path.write_bytes(b"\n103-1240-0000 CAF\xc9\n")
    with pytest.raises(UserError, match="103-1240.trans.txt: line 2 is not UTF-8"):
        run(root, tmp_path / "out")
