"""Decoding without references, and word times of a subset."""

import json
import shutil
from pathlib import Path

import pytest

from fairseq_skd import infer, manifest
from fairseq_skd.errors import UserError
from fairseq_skd.recognizer import load
from fairseq_skd.reporting.folders import read_runs
from fairseq_skd.reporting.page import decoded_row
from fairseq_skd.transcription.formats import Named, ctm
from tests.goldens import cases

HUBERT = cases.HERE / "hubert.pt"


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    data = cases.manifests(tmp_path / "labelled")
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(Path(data) / "test.tsv", folder)
    return folder


def decode(data: Path, out: Path, *overrides: str) -> None:
    keys = (f"task.data={data}", f"common_eval.path={HUBERT}", f"common_eval.results_path={out}", "common.cpu=true")
    infer.main([*keys, "dataset.gen_subset=test", "dataset.num_workers=0", *overrides])


def test_a_subset_without_labels(unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled, out = tmp_path / "labelled", tmp_path / "out"
    decode(labelled, tmp_path / "labelled-out")
    expected = tuple((tmp_path / "labelled-out" / name).read_bytes() for name in ("hypo.word", "hypo.units"))
    capsys.readouterr()
    decode(unlabelled, out)
    assert expected == ((out / "hypo.word").read_bytes(), (out / "hypo.units").read_bytes())
    assert sorted(path.name for path in out.iterdir()) == ["hypo.units", "hypo.word", "summary.json"]
    output, errors = capsys.readouterr()
    assert output.startswith("no references, ")
    assert f"{unlabelled}/test.ltr does not exist: decoding without references and error rates" in errors
    summary = json.loads((out / "summary.json").read_text())
    assert not {"wer", "cer", "words"} & summary.keys() and summary["sentences"] > 1
    (row,) = map(decoded_row, read_runs(tmp_path / "out").decoded)
    assert row.count("-") == 3
    assert capsys.readouterr().err == ""


def test_audio_listed_without_transcripts(unlabelled: Path, tmp_path: Path) -> None:
    audio = Path((unlabelled / "test.tsv").read_text().splitlines()[0])
    manifest.main(["audio", str(audio), "--out", str(tmp_path / "listed"), "--split", "test"])
    decode(tmp_path / "listed", tmp_path / "out")
    hypotheses = (tmp_path / "out" / "hypo.word").read_text().splitlines()
    assert len(hypotheses) == len((tmp_path / "listed" / "test.tsv").read_text().splitlines()) - 1 > 0


def test_labels_that_are_asked_for_must_be_there(unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dict\.ltr\.txt does not exist"):
        decode(unlabelled, tmp_path / "out", "task.labels=ltr")
    with pytest.raises(UserError, match="--multirun compares error rates, but the subset has no labels"):
        decode(unlabelled, tmp_path / "out", "--multirun", "decoding.blankweight=0,1")


def test_times_are_those_of_transcribe(unlabelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(unlabelled, out, "decoding.times=true")
    root, *lines = (unlabelled / "test.tsv").read_text().splitlines()
    names = [line.split("\t")[0] for line in lines]
    found = load(HUBERT, (0,), "cpu").transcribe([Path(root, name) for name in names])
    expected = [ctm(Named(name, name.rpartition(".")[0], one)) for name, one in zip(names, found, strict=True)]
    assert (out / "hypo.ctm").read_text() == "".join(expected)
    decode(unlabelled, out)
    assert not (out / "hypo.ctm").exists()
