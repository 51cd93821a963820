"""examples/first_student.py, run as a user does, and the notebook that is made from it."""

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib import colors, image

import fairseq_skd
from fairseq_skd.alignment.figures import STUDENT, TEACHER
from tests.builders import LETTERS, write_pretrained

EXAMPLES = Path(fairseq_skd.__file__).resolve().parents[1] / "examples"
SCRIPT, TOOL = EXAMPLES / "first_student.py", EXAMPLES / "make_notebook.py"
RATE = 16000
TEXTS = {
    "anna": ["Go on.", "It is 2!"],
    "bert": ["so it goes", "No,\nno"],
    "cleo": ["ten", "I'll go"],
    "dora": ["On it", "“Yes”"],
}
WORDS = ["GO ON", "IT IS TWO", "SO IT GOES", "NO NO", "TEN", "I'LL GO", "ON IT", "YES"]


def write_corpus(folder: Path, texts: dict[str, list[str]] = TEXTS) -> Path:
    """A folder per speaker; each letter is a tone of its own."""
    rng = np.random.default_rng(0)
    for speaker, said in texts.items():
        (folder / speaker).mkdir(parents=True)
        for number, text in enumerate(said):
            tones = np.repeat([LETTERS.index(letter) for letter in text.upper() if letter in LETTERS], RATE // 5)
            wave = 0.3 * np.sin(2 * np.pi * (150 + 90 * tones) * np.arange(len(tones)) / RATE)
            place = folder / speaker / f"{speaker}{number}{('.wav', '.flac')[number % 2]}"
            soundfile.write(place, wave + 0.01 * rng.standard_normal(len(wave)), RATE, subtype="PCM_16")
            place.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return folder


def table(out: Path) -> list[dict[str, str]]:
    head, *rows = [line.split("\t") for line in (out / "table.tsv").read_text(encoding="utf-8").splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture
def example(monkeypatch):
    """Run the script in this process. Each command that it calls ends with status 7."""

    def run(*arguments: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        monkeypatch.setattr(subprocess, "run", lambda line: subprocess.CompletedProcess(line, 7))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.value.code

    return run


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_pretrained(tmp_path / "encoder.pt")


def call(arguments: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(EXAMPLES.parent),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "agg",
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_from_a_folder_to_a_student(encoder: Path, tmp_path: Path) -> None:
    """Relative paths, one with a space."""
    write_corpus(tmp_path / "my corpus")
    out = tmp_path / "first"
    options = ("--student-layer", 2, "--updates", 4, "dataset.max_tokens=64000")
    done = call(["my corpus", "encoder.pt", "first", *options], tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]

    splits = {split: {row["speaker"] for row in table(out) if row["split"] == split} for split in ("train", "test")}
    assert len(splits["train"]) == 2 and len(splits["test"]) == 1 and not splits["train"] & splits["test"]
    words = [line for path in (out / "manifests").glob("*.wrd") for line in path.read_text().splitlines()]
    assert sorted(words) == sorted(WORDS)
    assert (out / "training" / "checkpoint_best.pt").is_file()

    lines = done.stdout.splitlines()
    commands = [line.split()[2] for line in lines if line.startswith("python -m ")]
    assert commands == [f"fairseq_skd.{name}" for name in ("manifest", "train", "infer", "infer")]
    (train,) = [line for line in lines if line.startswith("python -m fairseq_skd.train hubert_mini ")]
    assert train.endswith(" 'model.student_layers=[2]' optimization.max_update=4 dataset.max_tokens=64000")
    for name, layer in (("teacher", 4), ("student", 2)):
        summary = json.loads((out / f"test-{name}" / "summary.json").read_text())
        assert summary["exit_layer"] == layer and summary["sentences"] == 2
        (row,) = [line.split() for line in lines if line.startswith(f"{name} ")]
        assert row == [name, str(layer), f"{summary['parameters']:,}", f"{summary['wer']:.2f}"]

    assert lines[-1] == "spikes: first/spikes.png"
    pixels = image.imread(out / "spikes.png")[..., :3]
    for colour in (TEACHER, STUDENT):
        assert (np.abs(pixels - colors.to_rgb(colour)).max(axis=2) < 0.02).sum() > 500, colour


@pytest.mark.parametrize("speakers", [1, 2])
def test_few_speakers_are_divided_by_recording(speakers, example, encoder, tmp_path, capsys) -> None:
    """The exit status is that of the first command."""
    names = list(TEXTS)[:speakers]
    corpus = write_corpus(tmp_path / "corpus", dict.fromkeys(names, TEXTS["anna"] + TEXTS["bert"]))
    assert example(corpus, encoder, tmp_path / "out") == 7
    rows = table(tmp_path / "out")
    assert sorted(row["split"] for row in rows) == ["test", "train", *["train"] * (4 * speakers - 3), "valid"]
    assert {row["speaker"] for row in rows} == set(names)
    assert rows[0]["text"] == "Go on." and rows[3]["text"] == "No, no"
    assert "python -m fairseq_skd.manifest table" in capsys.readouterr().out


def test_recordings_without_folders_have_no_speaker(example, encoder, tmp_path) -> None:
    corpus = write_corpus(tmp_path, {"corpus": TEXTS["anna"] + TEXTS["bert"]}) / "corpus"
    assert example(corpus, encoder, tmp_path / "out") == 7
    assert {row["speaker"] for row in table(tmp_path / "out")} == {""}


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_audio(made, example, encoder, tmp_path) -> None:
    corpus = tmp_path / "corpus"
    if made:
        corpus.mkdir()
    assert example(corpus, encoder, tmp_path / "out") == (
        f"{corpus} has 0 .wav and .flac files: give a folder with at least 3"
    )
    assert not (tmp_path / "out").exists()


def test_a_recording_without_transcript(example, encoder, tmp_path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "bert" / "bert1.txt").unlink()
    assert example(corpus, encoder, tmp_path / "out") == (
        f"{corpus}/bert/bert1.flac has no transcript: write its text to bert1.txt beside it"
    )
    assert not (tmp_path / "out").exists()


def test_audio_of_an_earlier_run_is_no_recording(example, encoder, tmp_path) -> None:
    """OUT is inside the folder of recordings, and holds audio that was converted."""
    corpus = write_corpus(tmp_path / "corpus")
    out = corpus / "run"
    assert example(corpus, encoder, out) == 7
    first = table(out)
    shutil.copytree(corpus / "anna", out / "manifests" / "audio")
    assert example(corpus, encoder, out) == 7
    assert table(out) == first


def test_a_missing_encoder(example, tmp_path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    assert example(corpus, tmp_path / "none.pt", tmp_path / "out") == (
        f"the encoder {tmp_path}/none.pt does not exist: give a pretrained checkpoint"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_transcript_that_is_not_utf8(encoder, tmp_path) -> None:
    """The manifest refuses and names the row of the table; nothing is trained."""
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "anna" / "anna0.txt").write_bytes("Grüße".encode("latin-1"))
    done = call([corpus, encoder, "out"], tmp_path)
    assert done.returncode == 2
    assert "first out/table.tsv:2; " in done.stdout and "character outside the alphabet (1)" in done.stdout
    assert "Traceback" not in done.stdout and not (tmp_path / "out" / "training").exists()


def test_the_notebook_is_the_script() -> None:
    """Byte for byte what make_notebook.py writes; its code is the script's, in order."""
    tool = runpy.run_path(str(TOOL))
    written = (EXAMPLES / "first_student.ipynb").read_text(encoding="utf-8")
    assert written == tool["text_of"](SCRIPT.read_text(encoding="utf-8")), "run python examples/make_notebook.py"
    cells = json.loads(written)["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(code)) == ast.dump(ast.Module(script.body[1:], []))  # without the docstring
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    assert prose[0] == ast.get_docstring(script)
    assert [text.partition("\n")[0] for text in prose[1:]] == [
        "## 1. A table of the corpus",
        "## 2. Manifests, training, decoding",
        "## 3. The spikes of teacher and student",
    ]
