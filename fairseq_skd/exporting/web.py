"""Write a page that transcribes in a browser, with int8 models and onnxruntime-web beside it."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError, shown
from fairseq_skd.exporting import onnx
from fairseq_skd.exporting.decode import MARKS
from fairseq_skd.onnx_recognizer import INT8
from fairseq_skd.recognizer import Recognizer

PAGE = Path(__file__).parent / "web"
PACKAGE = "onnxruntime-web"
# File of the npm package -> file of the page. Some file servers do not know .mjs. The bundle holds
# the loader of the .wasm file, so these two are enough.
RUNTIME = {"dist/ort.wasm.bundle.min.mjs": "ort.js", "dist/ort-wasm-simd-threaded.wasm": "ort.wasm"}


def check_runtime(runtime: Path) -> None:
    """Check that a folder is the unpacked npm package onnxruntime-web.

    Raises:
        UserError: the folder is another one, or the package lacks a file that the page needs.
    """
    fix = f"give the folder of the unpacked npm package {PACKAGE} (npm install {PACKAGE}: node_modules/{PACKAGE})"
    try:
        package = json.loads((runtime / "package.json").read_text(encoding="utf-8"))
        name, version = package["name"], package["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"--runtime {runtime} holds no package.json of an npm package: {fix}") from error
    if name != PACKAGE:
        raise UserError(f"--runtime {runtime} is the npm package {shown(name)}: {fix}")
    for file in RUNTIME:
        if not (runtime / file).is_file():
            raise UserError(f"--runtime {runtime} (version {shown(version)}) lacks {file}: use {PACKAGE} 1.20 or later")


def write(rec: Recognizer, folder: Path, runtime: Path, beside: Sequence[Recognizer] = ()) -> None:
    """Write the page, the int8 models and the runtime.

    Args:
        rec: loaded at one exit, on the CPU, in float32.
        folder: an existing folder.
        runtime: the unpacked npm package, see :func:`check_runtime`.
        beside: another exit of the same checkpoint, to compare; or none.

    Raises:
        UserError: see :func:`fairseq_skd.exporting.onnx.write`.
    """
    for file in PAGE.iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "runtime").mkdir()
    for name, copy in RUNTIME.items():
        shutil.copyfile(runtime / name, folder / "runtime" / copy)
    exits = []
    for one in sorted([rec, *beside], key=lambda one: -one.exits[0]):  # the teacher first
        model = folder / f"exit-{one.exits[0]}.onnx"
        with tempfile.TemporaryDirectory(dir=folder) as exported:
            onnx.write(one, Path(exported), int8=True)
            (Path(exported) / INT8).rename(model)
        exits.append(describe_exit(one, model))
    content = {**describe(rec), "exits": exits}
    (folder / "models.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def describe(rec: Recognizer) -> dict[str, Any]:
    """Describe audio, frames and symbols: the part of ``models.json`` that holds for all exits."""
    return {
        "sample_rate": rec.sample_rate,
        "shortest": rec.waveforms.shortest,
        "frame_step": rec.frame_grid.step,
        "pieces": text_pieces(rec.symbols, rec.post_process),
    }


def describe_exit(rec: Recognizer, model: Path) -> dict[str, Any]:
    """Describe one exit for the page: name, layers, parameters, file and bytes."""
    (layers,) = rec.exits
    return {
        "name": "teacher" if layers == rec.depth else f"student of {layers} layers",
        "layers": layers,
        "parameters": rec.parameters,
        "file": model.name,
        "bytes": model.stat().st_size,
    }


def text_pieces(symbols: Sequence[str], process: str) -> list[str]:
    """List what each symbol adds to the text, spaces included. The text is the pieces, stripped.

    >>> text_pieces(["<s>", "</s>", "<unk>", "A", "|"], "letter")
    ['', '', '<unk>', 'A', ' ']

    Args:
        symbols: of the dictionary.
        process: a name of fairseq's ``post_process`` that :mod:`fairseq_skd.exporting.onnx` takes.
    """
    mark = MARKS.get(process)
    pieces = (f"{symbol} " if mark is None else symbol.replace(mark, " ") for symbol in symbols)
    return ["" if symbol in ("<s>", "</s>") else piece for symbol, piece in zip(symbols, pieces, strict=True)]
