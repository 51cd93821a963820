"""The folder of ``--format web``, without a browser."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process

import fairseq_skd
from fairseq_skd import export
from fairseq_skd.errors import UserError
from fairseq_skd.exporting import web
from fairseq_skd.exporting.decode import MARKS
from tests.builders import write_npm_package

CHECKPOINT = Path(__file__).parents[1] / "goldens" / "hubert.pt"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_npm_package(tmp_path / "package")


@pytest.mark.slow
def test_the_folder_is_complete(package: Path, tmp_path: Path) -> None:
    recs = [fairseq_skd.load(CHECKPOINT, exits=(layer,), device="cpu") for layer in (2, 4)]
    out = tmp_path / "out"
    out.mkdir()
    web.write(recs[0], out, package, beside=recs[1:])
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    models = {"models.json", "exit-4.onnx", "exit-2.onnx", "runtime/ort.js", "runtime/ort.wasm"}
    assert files == {path.name for path in web.PAGE.iterdir()} | models
    assert (out / "runtime" / "ort.wasm").read_text() == "ort-wasm-simd-threaded.wasm"

    about = json.loads((out / "models.json").read_text(encoding="utf-8"))
    assert about["sample_rate"] == 16000 and about["frame_step"] == 320 and about["shortest"] == 400
    assert len(about["pieces"]) == 32
    assert [(one["name"], one["layers"], one["file"]) for one in about["exits"]] == [
        ("teacher", 4, "exit-4.onnx"),
        ("student of 2 layers", 2, "exit-2.onnx"),
    ]
    assert [one["parameters"] for one in about["exits"]] == [rec.parameters for rec in reversed(recs)]
    for one in about["exits"]:
        assert one["bytes"] == (out / one["file"]).stat().st_size
        session = onnxruntime.InferenceSession(out / one["file"], providers=["CPUExecutionProvider"])
        audio = {"x": np.zeros((1, 720), np.float32), "lengths": np.array([720])}
        assert session.run(["log_probs", "frame_lengths"], audio)[0].shape == (1, 2, 32)


def test_all_files_that_the_page_names_are_there() -> None:
    """Imports, links, the worker, and what it loads."""
    there = {path.name for path in web.PAGE.iterdir()} | {f"runtime/{name}" for name in web.RUNTIME.values()}
    named = set()
    for path in web.PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        named |= {
            name.removeprefix("./")
            for name in re.findall(r'"((?:\./)?(?:runtime/)?[\w-]+\.(?:js|css|wasm|json))"', text)
        }
    assert named == (there | {"models.json"}) - {"index.html"}


def test_no_address_of_another_host() -> None:
    for path in web.PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
        assert not re.search(r"\w:?//\w", re.sub(r"^\s*//.*|  //.*", "", text, flags=re.MULTILINE)), path.name


def test_the_policy_allows_this_server_alone() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', (web.PAGE / "index.html").read_text())
    sources = {source for part in policy.split(";") for source in part.split()[1:]}
    assert sources == {"'none'", "'self'", "'wasm-unsafe-eval'", "data:", "blob:"}


@pytest.mark.parametrize(
    ("process", "units"),
    [
        ("letter", "G O | | O N |"),
        ("sentencepiece", "\u2581G O \u2581O N"),
        ("wordpiece", "_G O _O N"),
        ("_EOW", "G O_EOW O N_EOW"),
        ("none", "GO ON"),
    ],
)
def test_pieces_join_as_in_infer(process: str, units: str) -> None:
    dictionary = Dictionary()
    for unit in units.split():
        dictionary.add_symbol(unit)
    found = [dictionary.index(unit) for unit in ["<unk>", *units.split(), "</s>"]]
    pieces = web.text_pieces(dictionary.symbols, process)
    assert "".join(pieces[index] for index in found).strip() == post_process(dictionary.string(found), process)
    assert process in (*MARKS, "none")


def test_a_runtime_is_taken(package: Path) -> None:
    web.check_runtime(package)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"holds no package\.json of an npm package"),
        ("[1]", r"holds no package\.json of an npm package"),
        ("{", r"holds no package\.json of an npm package"),
        ('{"name": "onnxruntime-node", "version": "1"}', "is the npm package onnxruntime-node: give the folder"),
    ],
)
def test_another_folder_is_refused(package: Path, content: str | None, message: str) -> None:
    (package / "package.json").unlink()
    if content is not None:
        (package / "package.json").write_text(content)
    with pytest.raises(UserError, match=message):
        web.check_runtime(package)


def test_an_older_runtime_is_refused(package: Path) -> None:
    (package / "dist" / "ort.wasm.bundle.min.mjs").unlink()
    with pytest.raises(UserError, match=r"\(version 1\.30\.0\) lacks dist/ort\.wasm\.bundle\.min\.mjs: use "):
        web.check_runtime(package)


@pytest.mark.slow
def test_the_command_writes_one_exit(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["--layer", "2", "--format", "web", "--runtime", str(package), "--out", str(out)]
    export.main([str(CHECKPOINT), *options])
    assert f"{out}: web, 2 of 4 layers" in capsys.readouterr().out
    assert [one["layers"] for one in json.loads((out / "models.json").read_text())["exits"]] == [2]
    assert (out / "runtime" / "ort.js").is_file() and (out / "index.html").is_file()
    assert "python -m http.server" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "web"], "--format web needs --runtime: the folder of"),
        (["--format", "web", "--runtime", "."], r"--runtime \. holds no package\.json"),
        (["--format", "onnx", "--runtime", "."], "--runtime has no meaning for --format onnx"),
        (["--format", "hf", "--layer", "2", "--layer", "4"], "--layer is given 2 times: --format web takes two"),
        (["--format", "web", *["--layer", "2"] * 3], "--layer is given 3 times"),
    ],
)
def test_the_command_refuses(options: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export.main([str(CHECKPOINT), "--out", "out", *options])
    assert not (tmp_path / "out").exists()


def test_one_exit_under_two_names(package: Path, tmp_path: Path) -> None:
    options = ["--format", "web", "--runtime", str(package), "--layer", "0", "--layer", "4"]
    with pytest.raises(UserError, match="--layer names exit 4 twice"):
        export.main([str(CHECKPOINT), "--out", str(tmp_path / "out"), *options])
