"""The command: what it writes, prints and refuses; the model card."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from fairseq_skd import export, infer
from fairseq_skd.errors import UserError
from fairseq_skd.exporting import card
from fairseq_skd.files.disk import file_hash
from tests.builders import write_corpus
from tests.decoding.checkpoints import FULL, STUDENT, edit_checkpoint
from tests.exporting.exports import load, noise, run, write

HOSTILE = "x\n---\nlicense: mit\n# `<script>`|[a](javascript:b) ``` \x1b[2J \u202e {{ %"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("run") / "checkpoint_best.pt")


def front_matter(readme: str) -> dict:
    _, front, _ = readme.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_folder_and_the_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(checkpoint, STUDENT, "fairseq", tmp_path / "deep" / "out")
    rec = load(checkpoint, STUDENT)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    assert capsys.readouterr().out == (
        f"{out}: fairseq, 2 of 4 layers, {rec.parameters / 1e6:.1f} M parameters, {size:.1f} MB\n"
    )
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "checkpoint.pt", "dict.ltr.txt"]
    assert (out / "dict.ltr.txt").read_text().startswith("| 1\nE 1\n")
    state = torch.load(out / "checkpoint.pt", weights_only=False)
    assert "last_optimizer_state" not in state and not any("student" in name for name in state["model"])
    assert file_hash(checkpoint) != file_hash(out / "checkpoint.pt")


def test_any_user_may_read_the_files(checkpoint: Path, tmp_path: Path) -> None:
    out = run(checkpoint, STUDENT, "hf", tmp_path / "out")
    assert {oct(file.stat().st_mode)[-3:] for file in out.iterdir()} == {"644"}


def test_the_card(checkpoint: Path, tmp_path: Path) -> None:
    out = run(checkpoint, STUDENT, "hf", tmp_path / "out", "--license", "cc-by-4.0")
    text = (out / "README.md").read_text(encoding="utf-8")
    assert front_matter(text) == {
        "license": "cc-by-4.0",
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["automatic-speech-recognition", "ctc", "hubert", "fairseq", "fairseq_skd"],
    }
    for line in (
        "| encoder | `hubert, the first 2 of 4 layers` |",
        "| audio | `16000 Hz, one channel, not scaled` |",
        "| units | `32 symbols, index 0 is the CTC blank` |",
        "| model.student_layers | `[2]` |",
        "Not measured here.",
        f"python -m fairseq_skd.export {checkpoint} --layer 2 --format hf --out {out} --license cc-by-4.0",
    ):
        assert f"\n{line}\n" in text


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fairseq", "hf", "onnx", "sherpa"])
def test_the_lines_of_the_card_run(form: str, tmp_path: Path) -> None:
    """As they stand there, they print the text of the checkpoint."""
    pytest.importorskip({"hf": "transformers", "onnx": "onnxruntime", "sherpa": "sherpa_onnx"}.get(form, "torch"))
    checkpoint = write(tmp_path / "checkpoint_best.pt", normalize=True)  # sherpa-onnx always scales audio
    out = run(checkpoint, STUDENT, form, tmp_path / "out")
    (audio,) = noise(0.9)
    soundfile.write(tmp_path / "audio.wav", audio, 16000, subtype="FLOAT")
    language, lines = re.findall(r"^```(\w+)\n(.*?)\n```$", (out / "README.md").read_text(), re.MULTILINE | re.DOTALL)[
        0
    ]
    lines = lines.replace("FOLDER", str(out)).replace("python ", f"{sys.executable} ")
    command = [sys.executable, "-c", lines] if language == "python" else ["sh", "-ec", lines.partition("\n")[2]]
    environment = {**os.environ, "PYTHONPATH": str(Path(card.__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    wanted = load(checkpoint, STUDENT).transcribe([audio])[0].text
    assert done.stdout.splitlines()[-1].rpartition("\t")[2].strip() == wanted and len(wanted) > 3


def test_a_hostile_configuration_stays_in_its_cells(checkpoint: Path, tmp_path: Path) -> None:
    hostile = edit_checkpoint(
        checkpoint,
        tmp_path / "hostile.pt",
        model={"w2v_path": HOSTILE},
        task={"data": HOSTILE, "labels": ["../../" + HOSTILE]},
        common={"seed": HOSTILE},
    )
    out = run(hostile, STUDENT, "fairseq", tmp_path / "out")
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "checkpoint.pt", "dict.ltr.txt"]
    text = (out / "README.md").read_text(encoding="utf-8")
    assert front_matter(text)["license"] == "unknown" and "\x1b" not in text and "\u202e" not in text
    assert text.count("```") == 4 and text.count("\n---\n") == 1
    assert not re.search(r"^license: mit", text, re.MULTILINE)
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "script" not in outside and "javascript" not in outside
    (seed,) = [line for line in text.splitlines() if line.startswith("| common.seed |")]
    assert len(re.findall(r"(?<!\\)\|", seed)) == 3


@pytest.mark.parametrize("name", ["mit: x", "MIT", "", "a\nb", "-x"])
def test_a_licence_that_is_no_name(name: str) -> None:
    with pytest.raises(UserError, match="^--license .* is no name that the Hugging Face hub takes: give one such as"):
        card.check_license(name)


@pytest.mark.slow
def test_results(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of this checkpoint and this exit."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = write_corpus(tmp_path / "data", {"test": [("IT IS", 0.7), ("NO", 0.5)]})
    results = tmp_path / "test2"
    given = [f"task.data={data}", f"common_eval.path={checkpoint}", "decoding.layer=2", "common.cpu=true"]
    infer.main([*given, f"common_eval.results_path={results}", "common_eval.quiet=true"])
    summary = json.loads((results / "summary.json").read_text())
    assert summary["checkpoint_sha256"] == file_hash(checkpoint)
    out = run(checkpoint, STUDENT, "fairseq", tmp_path / "out", "--results", str(results))
    text = (out / "README.md").read_text(encoding="utf-8")
    assert f"\n| WER % | `{summary['wer']}` |\n" in text and "\n| subset | `test` |\n" in text
    with pytest.raises(UserError, match=r"is of exit 2, but exit 4 is exported: run infer with decoding\.layer=4$"):
        run(checkpoint, FULL, "fairseq", tmp_path / "full", "--results", str(results))
    with pytest.raises(UserError, match=r"is of another checkpoint .* than .*checkpoint\.pt: run infer with common"):
        run(out, 0, "fairseq", tmp_path / "again", "--results", str(results))
    with pytest.raises(UserError, match=r"has no summary\.json: give the results folder"):
        run(checkpoint, STUDENT, "fairseq", tmp_path / "none", "--results", str(data))
    for content, words in (("[]", "is no summary of"), ("{", "is no summary of"), ('{"exit_layer": 2}', "infer again")):
        (results / "summary.json").write_text(content)
        with pytest.raises(UserError, match=words):
            run(checkpoint, STUDENT, "fairseq", tmp_path / "none", "--results", str(results))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--layer", "3"], r"^--layer 3: the checkpoint has no exit at layer 3: use 0 .* or a student's .*\(2\)$"),
        (["--int8"], r"^--int8 has no meaning for --format fairseq: omit it, or use onnx and sherpa$"),
        (["--license", "!"], "^--license ! is no name"),
        (["--out", "."], r"^--out \. is not empty: remove it, or give another folder$"),
        (["--out", "file"], "^--out file is a file: give the name of a new folder$"),
    ],
)
def test_mistakes(
    more: list[str], words: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    with pytest.raises(UserError, match=words):
        export.main([str(checkpoint), "--format", "fairseq", "--out", "out", *more])
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_missing_library_is_one_sentence(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--format onnx needs onnx and .*: pip install 'fairseq_skd\[export\]'$"):
        run(checkpoint, STUDENT, "onnx", tmp_path / "out")


def test_a_checkpoint_without_a_dictionary(checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=False)
    torch.save({**state, "task_state": {}}, tmp_path / "bare.pt")
    for form in ("fairseq", "hf"):
        with pytest.raises(UserError, match="holds no dictionary"):
            run(tmp_path / "bare.pt", STUDENT, form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.onnx", "is an ONNX model, which can only be run .*: give the checkpoint that it was exported from$"),
        ("", "is an ONNX model, which can only be run"),
        ("model.safetensors", "holds weights only: give its folder .*$"),
    ],
)
def test_a_model_that_is_no_checkpoint(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("x")
    with pytest.raises(UserError, match=f"^checkpoint {tmp_path / name} {words}"):
        run(tmp_path / name, 0, "hf", tmp_path / "out")
