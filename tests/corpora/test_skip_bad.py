"""``--skip-bad``: bad rows are left out, counted and listed; the rest is as if without them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest
from fairseq_skd.errors import UserError

GOOD = [("a.wav", "GO ON", "train"), ("deep/b.flac", "DON'T SEE", "test")]
BAD = [("none.wav", "GO", "train"), ("c:1.ogg", "CAFÉ", "train"), ("a.wav", "GO ON", "train"), ("eight.wav",)]


def run(table: Path, corpus: Path, out: Path, *options: str) -> None:
    manifest.main(["table", str(table), "--audio-root", str(corpus), "--out", str(out), *options])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_bad_rows_are_left_out_counted_and_listed(write_table, corpus: Path, tmp_path: Path, capsys):
    run(write_table(*GOOD), corpus, tmp_path / "good")
    table = write_table(GOOD[0], *BAD, GOOD[1])
    with pytest.raises(UserError) as refusal:
        run(table, corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    counts = "4 of 6 rows (malformed row 1, path that occurs twice in a split 1, missing file 1, "
    counts += "character outside the alphabet 1)"
    refused = str(refusal.value).splitlines()
    assert refused[-1] == f"refused: {counts}; nothing was written; --skip-bad leaves these rows out"
    capsys.readouterr()
    run(table, corpus, tmp_path / "out", "--skip-bad")
    written = files(tmp_path / "out")
    listed = written.pop("skipped.txt").decode().splitlines()
    assert written == files(tmp_path / "good")
    assert listed == [*refused[1:-1], f"  {table}:4  c:1.ogg  'É'", f"left out: {counts}"]  # each row, too
    assert f"note: left out: {counts}; skipped.txt lists them\n" in capsys.readouterr().out


def test_the_list_never_lies(write_table, corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(write_table(*GOOD, BAD[0]), corpus, out, "--skip-bad")
    first = (out / "skipped.txt").read_text()
    run(write_table(*GOOD, BAD[1], BAD[0]), corpus, out, "--skip-bad")  # replaced without --force
    assert "none.wav" in first and "c:1.ogg" in (out / "skipped.txt").read_text()
    with pytest.raises(UserError):
        run(write_table(*GOOD, BAD[0]), corpus, out)
    assert "c:1.ogg" in (out / "skipped.txt").read_text()  # a refusal changes nothing
    run(write_table(*GOOD), corpus, out, "--skip-bad")
    assert not (out / "skipped.txt").exists()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([GOOD[0], ("none.wav", "GO", "test")], "every row of test has a problem"),
        ([("a.wav", "é", "train"), ("none.wav", "GO", "test")], "every row of train, test has a problem"),
        ([("a.wav",)], "every row of it has a problem"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--unit", "spm", "--vocab-size", "28")])
def test_a_split_without_rows_is_refused(write_table, corpus: Path, tmp_path: Path, rows, why, options):
    table = write_table(*rows)
    with pytest.raises(UserError) as refusal:
        run(table, corpus, tmp_path / "out", *options)
    assert str(refusal.value).endswith("nothing was written")  # --skip-bad would not help
    with pytest.raises(UserError) as refusal:
        run(table, corpus, tmp_path / "out", "--skip-bad", *options)
    assert str(refusal.value).startswith(f"the table is refused: {why}\n")
    assert not (tmp_path / "out").exists()


def test_pieces_and_lexicon_know_only_the_rows_that_stay(write_table, corpus: Path, tmp_path: Path):
    options = ("--unit", "spm", "--vocab-size", "28", "--lexicon", "--resample")
    rows = [("a.wav", "GO ON GO ON", "train"), ("deep/b.flac", "SEE", "train")]
    run(write_table(*rows), corpus, tmp_path / "good", *options)
    run(write_table(*rows, ("eight.wav", "ÉTÉ ÉTÉ SEE", "train")), corpus, tmp_path / "out", "--skip-bad", *options)
    written = files(tmp_path / "out")
    assert b"U+00C9" in written.pop("skipped.txt") and written == files(tmp_path / "good")


def test_damage_that_only_conversion_finds(write_table, corpus: Path, tmp_path: Path):
    noise = np.random.default_rng(2).normal(0, 0.1, 80000)
    soundfile.write(corpus / "hole.flac", noise, 8000)
    content = bytearray((corpus / "hole.flac").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    (corpus / "hole.flac").write_bytes(content)
    rows = [("eight.wav", "GO", "train"), ("hole.flac", "QUITE", "train")]
    run(write_table(*rows), corpus, tmp_path / "out", "--skip-bad", "--resample", "--lexicon")
    assert (tmp_path / "out" / "train.wrd").read_text() == "GO\n"
    assert (tmp_path / "out" / "train.tsv").read_text().count("\n") == 2
    assert (tmp_path / "out" / "lexicon.txt").read_text() == "GO\tG O |\n"
    assert "table.tsv:3  hole.flac" in (tmp_path / "out" / "skipped.txt").read_text()


def test_structural_mistakes_are_refused_all_the_same(write_table, corpus: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        run(write_table(*GOOD), corpus / "none", tmp_path / "out", "--skip-bad")
    with pytest.raises(UserError, match="text"):
        run(write_table(*GOOD, header=("path", "words", "split")), corpus, tmp_path / "out", "--skip-bad")


def test_letters_of_rows_that_are_left_out_are_no_units(write_table, corpus: Path, tmp_path: Path):
    rows = [
        ("a.wav", "ja nein", "train"),
        ("deep/b.flac", "jß 3", "train"),
        ("c:1.ogg", "ß", "valid"),
        ("eight.wav", "ja", "valid"),
    ]
    table = write_table(*rows)
    run(table, corpus, tmp_path / "out", "--language", "de", "--skip-bad", "--resample")
    symbols = [line.split()[0] for line in (tmp_path / "out" / "dict.ltr.txt").read_text().splitlines()]
    assert sorted(symbols) == sorted({*"janein", "|"})  # not ß: the row with a 3 is left out, and so its ß
    listed = (tmp_path / "out" / "skipped.txt").read_text()
    assert f"{table}:3  deep/b.flac  'ß' '3'" in listed and f"{table}:4  c:1.ogg  'ß'" in listed


@pytest.mark.parametrize("bad", ["none.wav", "hole.flac"])  # found before conversion, and by it
def test_letters_of_rows_without_audio_are_no_units(write_table, corpus: Path, tmp_path: Path, bad: str):
    noise = np.random.default_rng(2).normal(0, 0.1, 80000)
    soundfile.write(corpus / "hole.flac", noise, 8000)
    content = bytearray((corpus / "hole.flac").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    (corpus / "hole.flac").write_bytes(content)
    rows = [("a.wav", "ja", "train"), ("c:1.ogg", "ñ", "valid"), ("deep/b.flac", "ja", "valid")]
    table = write_table(*rows, (bad, "ña", "train"))
    run(table, corpus, tmp_path / "out", "--language", "de", "--skip-bad", "--resample")
    assert (tmp_path / "out" / "dict.ltr.txt").read_text() == "| 1\na 1\nj 1\n"
    assert (tmp_path / "out" / "valid.wrd").read_text() == "ja\n"
    listed = (tmp_path / "out" / "skipped.txt").read_text()
    assert f"{table}:3  c:1.ogg  'ñ'" in listed and f"{table}:5  {bad}" in listed


@pytest.mark.parametrize("bad", ["ñ", "GO " * 40 + "ON", ""])
def test_a_good_row_that_repeats_a_bad_one_stays(write_table, corpus: Path, tmp_path: Path, bad: str):
    table = write_table(("a.wav", bad, "train"), ("a.wav", "GO", "train"), ("a.wav", "ON", "train"))
    run(table, corpus, tmp_path / "out", "--skip-bad")
    assert (tmp_path / "out" / "train.wrd").read_text() == "GO\n"
    assert f"{table}:4  a.wav  as in {table}:3" in (tmp_path / "out" / "skipped.txt").read_text()
    with pytest.raises(UserError) as refusal:  # without the option, all problems are listed
        run(table, corpus, tmp_path / "new")
    assert f"{table}:3  a.wav  as in {table}:2" in str(refusal.value)
