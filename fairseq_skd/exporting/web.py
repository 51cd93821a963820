"""Write a page that transcribes in a browser, with int8 models and onnxruntime-web beside it."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary

from fairseq_skd.errors import UserError, shown
from fairseq_skd.exporting import onnx
from fairseq_skd.recognizer import Recognizer

PAGE = Path(__file__).parent / "web"
PACKAGE = "onnxruntime-web"
# File of the npm package -> file of the page. Old file servers send wrong types for .mjs. The bundle
# holds the loader of the .wasm file, so these two are enough.
RUNTIME = {"dist/ort.wasm.bundle.min.mjs": "ort.js", "dist/ort-wasm-simd-threaded.wasm": "ort.wasm"}
# What stands for a space in text, by post_process. Units of the other ones are whole words.
_SPACES = {"letter": "|", "sentencepiece": "\u2581", "wordpiece": "_", "_EOW": "_EOW"}


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


def write(recs: Sequence[Recognizer], folder: Path, runtime: Path) -> None:
    """Write the page, the int8 models and the runtime.

    Args:
        recs: one or two exits of a checkpoint, each loaded alone; the page shows the full model
            first.
        folder: an empty folder.
        runtime: the unpacked npm package, see :func:`check_runtime`.
    """
    for file in PAGE.iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "runtime").mkdir()
    for file, name in RUNTIME.items():
        shutil.copyfile(runtime / file, folder / "runtime" / name)
    exits = []
    for rec in sorted(recs, key=lambda rec: -rec.exits[0]):
        name = f"exit-{rec.exits[0]}.onnx"
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            onnx.write(rec, Path(beside), int8=True)
            (Path(beside) / "model.int8.onnx").rename(folder / name)
        exits.append(describe_exit(rec, name, (folder / name).stat().st_size))
    content = {**describe(recs[0]), "exits": exits}
    (folder / "models.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def describe(rec: Recognizer) -> dict[str, Any]:
    """Describe audio, frames and symbols for the page: the part of ``models.json`` for all exits."""
    return {
        "sample_rate": rec.sample_rate,
        "normalize": rec.waveforms.normalize,
        "shortest": rec.waveforms.shortest,
        "frame_step": rec.frame_grid.step,
        "pieces": text_pieces(rec.dictionary, rec.post_process),
    }


def describe_exit(rec: Recognizer, file: str, size: int) -> dict[str, Any]:
    """Describe one exit for the page: name, layers, parameters, file and bytes."""
    (layers,) = rec.exits
    who = "teacher" if layers == rec.depth else "student"
    return {
        "who": who,
        "name": who,
        "layers": layers,
        "depth": rec.depth,
        "parameters": rec.parameters,
        "file": file,
        "bytes": size,
    }


def text_pieces(dictionary: Dictionary, process: str) -> list[str]:
    """List what each symbol adds to the text, spaces included. The text is the pieces, stripped.

    >>> dictionary = Dictionary()
    >>> _ = [dictionary.add_symbol(symbol) for symbol in "A|"]
    >>> text_pieces(dictionary, "letter")
    ['', '<pad>', '', '<unk>', 'A', ' ']

    Args:
        dictionary: of the training labels.
        process: one of fairseq's ``post_process`` names.
    """
    symbols = [dictionary.string([index]) for index in range(len(dictionary))]  # empty for sentence marks
    if process in _SPACES:
        return [symbol.replace(_SPACES[process], " ") for symbol in symbols]
    if process in ("subword_nmt", "@@ "):
        return [symbol.removesuffix("@@") if symbol.endswith("@@") else f"{symbol} " for symbol in symbols]
    silence = {"silence": "<SIL>", "@@": "@@"}.get(process, " ")
    return [f"{symbol.replace(silence, '')} ".lstrip() for symbol in symbols]
