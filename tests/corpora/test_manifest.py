"""``python -m fairseq_skd.manifest``: what it writes, that fairseq reads it, and refusals."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data import Dictionary, HubertDataset
from fairseq.data.audio.raw_audio_dataset import FileAudioDataset

from fairseq_skd import manifest
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import read_speakers

MANIFESTS = Path(__file__).parents[2] / "manifests"


def run(table: Path, corpus: Path, out: Path, *options: str) -> None:
    """Run the command in this process."""
    manifest.main(["table", str(table), "--audio-root", str(corpus), "--out", str(out), *options])


def files(folder: Path) -> dict[str, str]:
    """Read the text files of a folder, including hidden files."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}


def test_files_written(three: Path, corpus: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(three, Path("corpus"), Path("out"))
    assert files(tmp_path / "out") == {
        "train.tsv": f"{corpus}\na.wav\t16000\nc:1.ogg\t12345\n",
        "train.ltr": "G O | O N |\nY E S |\n",
        "train.wrd": "GO ON\nYES\n",
        "test.tsv": f"{corpus}\ndeep/b.flac\t17520\n",
        "test.ltr": "D O N ' T | S E E |\n",
        "test.wrd": "DON'T SEE\n",
        "dict.ltr.txt": (MANIFESTS / "dict.ltr.txt").read_text(),
    }
    assert capsys.readouterr().out == (
        "split      utterances    hours    speakers    words    letters\n"
        "train               2    0.000           -        3          7\n"
        "test                1    0.000           -        2          8\n"
        "written to out\n"
    )


def test_fairseqs_datasets_read_it(three: Path, corpus: Path, tmp_path: Path):
    run(three, corpus, tmp_path / "out")
    dictionary = Dictionary.load(str(tmp_path / "out" / "dict.ltr.txt"))
    tsv = str(tmp_path / "out" / "train.tsv")

    def encode(line: str) -> torch.Tensor:
        return dictionary.encode_line(line, append_eos=False, add_if_not_exist=False)

    dataset = HubertDataset(
        tsv, 16000, [str(tmp_path / "out" / "train.ltr")], [-1.0], [dictionary.pad()], [dictionary.eos()], [encode],
        shuffle=False, pad_audio=True, single_target=True,
    )  # fmt: skip
    items = [dataset[index] for index in range(len(dataset))]
    assert [len(item["source"]) for item in items] == list(dataset.sizes) == [16000, 12345]
    assert [dictionary.string(item["label_list"][0]) for item in items] == ["G O | O N |", "Y E S |"]
    batch = dataset.collater(items)
    assert batch["net_input"]["source"].shape == (2, 16000) and batch["target_lengths"].tolist() == [6, 4]
    plain = FileAudioDataset(tsv, 16000)
    assert [len(plain[index]["source"]) for index in range(2)] == [16000, 12345]


def test_shared_files_and_speakers_are_noted(write_table, corpus: Path, tmp_path: Path, capsys):
    rows = [("a.wav", "GO", "train", "s1"), ("deep/b.flac", "ON", "train", "s2"), ("a.wav", "GO", "tiny", "s1")]
    run(write_table(*rows, header=("path", "text", "split", "speaker")), corpus, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "note: train and tiny share 1 audio file(s)\nnote: train and tiny share 1 speaker(s)\n" in printed


SPEAKERS = ("path", "text", "split", "speaker")


def test_speakers_are_written_where_all_are_known(write_table, corpus: Path, tmp_path: Path, capsys):
    rows = [
        ("a.wav", "GO", "train", "ann"),
        ("deep/b.flac", "ON", "train", " bob b. "),
        ("a.wav", "GO", "dev", "ann"),
        ("deep/b.flac", "ON", "dev", ""),
        ("c:1.ogg", "NO", "test", " "),
    ]
    run(write_table(*rows, header=SPEAKERS), corpus, tmp_path / "out")
    assert (tmp_path / "out/train.spk").read_text() == "ann\nbob b.\n"
    assert read_speakers(tmp_path / "out/train.tsv") == ["ann", "bob b."]
    assert not (tmp_path / "out/dev.spk").exists()
    assert read_speakers(tmp_path / "out/test.tsv") is None
    printed = capsys.readouterr().out
    assert "note: 1 of 2 utterances of dev have no speaker, so dev.spk is not written\n" in printed
    assert "of test" not in printed


def test_speakers_of_an_earlier_run_are_refused(write_table, corpus: Path, tmp_path: Path):
    run(write_table(("a.wav", "GO", "train", "ann"), header=SPEAKERS), corpus, tmp_path / "out")
    before = files(tmp_path / "out")
    table = write_table(("deep/b.flac", "ON", "train"))
    with pytest.raises(UserError, match=r"out/train\.spk names the speakers of an earlier manifest.*delete the file"):
        run(table, corpus, tmp_path / "out", "--force")
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(("speaker", "why"), [("ann\nbob", "holds a tab, a line break"), ("\ud800", "is not Unicode")])
def test_speakers_that_a_line_cannot_hold(corpus: Path, tmp_path: Path, speaker, why):
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"path": "a.wav", "text": "GO", "speaker": speaker}))
    with pytest.raises(UserError, match=rf"malformed row(.|\n)*table\.jsonl:1  a\.wav  the speaker .* {why}"):
        run(table, corpus, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("ann\n", r"train\.spk has 1 lines, .*train\.tsv lists 2 utterances: make the manifest again, or delete"),
        ("ann\n \n", r"train\.spk line 2 names no speaker"),
        ("ann\nbob\nbob\n", r"train\.spk has 3 lines"),
    ],
)
def test_speakers_that_do_not_fit_the_manifest(three: Path, corpus: Path, tmp_path: Path, content, complaint):
    run(three, corpus, tmp_path / "out")
    (tmp_path / "out/train.spk").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_speakers(tmp_path / "out/train.tsv")


def test_resample_converts_only_what_needs_it(write_table, corpus: Path, tmp_path: Path):
    rows = [("a.wav", "GO", "train"), ("eight.wav", "ON", "train"), ("eight.wav", "ON", "test"), ("a.wav", "GO", "dev")]
    table, out = write_table(*rows), tmp_path / "out"
    run(table, corpus, out, "--resample", "--jobs", "2")
    assert (out / "train.tsv").read_text() == (
        f"{tmp_path}\ncorpus/a.wav\t16000\nout/audio_16khz/eight.wav.flac\t16000\n"
    )
    assert (out / "test.tsv").read_text() == f"{out}/audio_16khz\neight.wav.flac\t16000\n"
    assert (out / "dev.tsv").read_text() == f"{corpus}\na.wav\t16000\n"
    assert [path.name for path in (out / "audio_16khz").iterdir()] == ["eight.wav.flac"]
    wave, rate = soundfile.read(out / "audio_16khz" / "eight.wav.flac")
    assert (len(wave), rate) == (16000, 16000)
    run(table, corpus, out, "--resample")  # a second run writes the same bytes, so nothing is refused


def test_damage_found_while_resampling_leaves_nothing(write_table, corpus: Path, tmp_path: Path):
    noise = np.random.default_rng(2).normal(0, 0.1, 8000)
    soundfile.write(corpus / "hole.flac", noise, 8000)
    data = bytearray((corpus / "hole.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    (corpus / "hole.flac").write_bytes(data)
    table = write_table(("eight.wav", "GO", "train"), ("hole.flac", "GO", "train"))
    with pytest.raises(UserError, match=r"table.tsv:3  hole.flac  .+\nrefused: 1 of 2 rows"):
        run(table, corpus, tmp_path / "out", "--resample")
    assert not (tmp_path / "out").exists()


def test_a_refusal_lists_all_problems_and_leaves_the_folder_unchanged(write_table, corpus: Path, tmp_path: Path):
    rows = [("a.wav", "go", "train"), ("none.wav", "GO", "train"), ("eight.wav",), ("eight.wav", "GO", "test")]
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.tsv").write_text("mine\n")
    with pytest.raises(UserError) as caught:
        run(table := write_table(*rows), corpus, out, "--force")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the table is refused"
    assert [re.sub(r".*table\.tsv:(\d+)  (\S+).*", r"\1 \2", line) for line in lines if line.startswith("  ")] == [
        "4 eight.wav",
        "3 none.wav",
        "5 eight.wav",
        f"  'g' (U+0067 LATIN SMALL LETTER G)  once, in {table}:2; add --normalize upper",
        f"  'o' (U+006F LATIN SMALL LETTER O)  once, in {table}:2; add --normalize upper",
    ]
    assert lines[-1].startswith("refused: 4 of 4 rows (malformed row 1, missing file 1, ")
    assert files(out) == {"train.tsv": "mine\n"}


def test_existing_files_need_force(write_table, three: Path, corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(three, corpus, out)
    before = files(out)
    run(three, corpus, out)
    assert files(out) == before
    changed = write_table(("a.wav", "NO", "train"))
    with pytest.raises(
        UserError, match="train.ltr \\(and 1 more\\) exists with other content; add --force to replace it"
    ):
        run(changed, corpus, out)
    assert files(out) == before
    run(changed, corpus, out, "--force")
    assert files(out)["train.wrd"] == "NO\n" and files(out)["test.wrd"] == before["test.wrd"]


def test_table_is_never_overwritten(corpus: Path):
    table = corpus.parent / "train.tsv"
    table.write_text("path\ttext\na.wav\tGO\n")
    with pytest.raises(
        UserError, match="train.tsv: is the table itself and would be overwritten; choose another --out"
    ):
        run(table, corpus, corpus.parent, "--force")
    assert table.read_text() == "path\ttext\na.wav\tGO\n"


def test_tables_under_other_names_that_are_written_are_kept(corpus: Path):
    root = corpus.parent
    lines = "".join(f"a.wav|GO|{('anna', 's1')[number]}\n" for number in range(2)) + "deep/b.flac|ON|anna\n"
    columns = ["--delimiter", "|", "--no-header", "--path-column", "1", "--text-column", "2", "--speaker-column", "3"]
    for name, options in (("valid.tsv", ["--hold-out", "0.6"]), ("skipped.txt", ["--skip-bad"])):
        (root / name).write_text(lines)
        with pytest.raises(UserError, match=f"{name}: is the table itself and would be overwritten"):
            run(root / name, corpus, root, "--force", *columns, *options)
        assert (root / name).read_text() == lines


def test_split_option(write_table, corpus: Path, tmp_path: Path):
    table = write_table(("a.wav", "GO"), header=("path", "text"))
    run(table, corpus, tmp_path / "out", "--split", "dev-other")
    assert sorted(files(tmp_path / "out")) == ["dev-other.ltr", "dev-other.tsv", "dev-other.wrd", "dict.ltr.txt"]


def test_audio_root_that_is_missing_or_unfit(three: Path, corpus: Path, tmp_path: Path):
    with pytest.raises(UserError, match="none: no such folder; --audio-root is the folder"):
        run(three, corpus / "none", tmp_path / "out")
    odd = corpus.rename(tmp_path / "odd\nname")
    with pytest.raises(UserError, match="first line cannot hold this folder's name; rename the folder"):
        run(three, odd, tmp_path / "out")


def test_disk_errors_are_one_sentence(three: Path, corpus: Path, tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "train.tsv")

    monkeypatch.setattr("fairseq_skd.corpora.preparation.write_manifests", full)
    with pytest.raises(UserError, match="train.tsv: No space left on device; .*out is unchanged"):
        run(three, corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["a\0b", "\ud800"])
def test_split_that_no_file_system_takes(corpus: Path, tmp_path: Path, split: str):
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"path": "a.wav", "text": "GO", "split": split}) + "\n")
    with pytest.raises(UserError, match="table.jsonl:1  a.wav  the split .* is not a file name"):
        run(table, corpus, tmp_path / "out")


def test_audio_that_vanishes_in_resampling(write_table, corpus: Path, tmp_path: Path):
    soundfile.write(corpus / "click.wav", np.zeros(1), 48000)
    with pytest.raises(UserError, match="click.wav  it needs 2 frames, 0.00 s have 0"):
        run(write_table(("click.wav", "A", "train")), corpus, tmp_path / "out", "--resample")


@pytest.mark.parametrize("jobs", ["0", "-1", "x", "²"])
def test_invalid_numbers_of_jobs(jobs: str, capsys):
    with pytest.raises(SystemExit) as caught:
        manifest.main(["table", "t.tsv", "--audio-root", ".", "--out", "o", f"--jobs={jobs}"])
    assert caught.value.code == 2
    assert f"give a whole number of at least 1, not {jobs!r}" in capsys.readouterr().err


def test_help_explains_itself(capsys):
    with pytest.raises(SystemExit) as caught:
        manifest.main(["table", "--help"])
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    for wanted in ("path and text", "G O | O N |", "example:", "exit status: 0", "--resample"):
        assert wanted in printed
    assert max(map(len, printed.splitlines())) <= 120
