"""``python -m fairseq_skd.export``: write one exit of a checkpoint for other programs."""

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, require, run_command
from fairseq_skd.exporting import card
from fairseq_skd.files.disk import absolute
from fairseq_skd.files.progress import working
from fairseq_skd.files.staging import PREFIX, staged
from fairseq_skd.models.heads import NoExitError, check_exit
from fairseq_skd.models.trained import open_trained
from fairseq_skd.recognizer import Recognizer

_EXAMPLES = """\
examples
the student of six layers, without its teacher and without the optimizer's state:
  python -m fairseq_skd.export /runs/skd/checkpoint_best.pt --layer 6 --format fairseq --out /runs/skd/student
the full model for Hugging Face transformers:
  python -m fairseq_skd.export /runs/skd/checkpoint_best.pt --format hf --out /runs/skd/hf --license mit
a page that shows student and full model in a browser, after npm install --prefix /models onnxruntime-web:
  python -m fairseq_skd.export /runs/skd/checkpoint_best.pt --layer 6 --layer 0 --format web \\
      --runtime /models/node_modules/onnxruntime-web --out /runs/skd/web
"""


class Format(NamedTuple):
    """A format of an exported folder.

    Attributes:
        module: in ``fairseq_skd.exporting``; its ``write(rec, folder)`` writes the files. It is
            imported when the format is asked for.
        summary: for ``--help``.
        needs: libraries of the extra ``export`` that it needs.
        int8: whether ``write`` takes ``int8``.
        page: whether ``write`` takes ``runtime``, and a second exit ``beside`` the first.
    """

    module: str
    summary: str
    needs: tuple[str, ...] = ()
    int8: bool = False
    page: bool = False


FORMATS = {
    "fairseq": Format("fairseq_file", "checkpoint.pt without the optimizer's state, for fairseq and this package"),
    "hf": Format("huggingface", "a folder for Hugging Face transformers"),
    "onnx": Format("onnx", "a model for ONNX Runtime", ("onnx", "onnxruntime"), int8=True),
    "sherpa": Format("sherpa", "a model for sherpa-onnx", ("onnx", "onnxruntime"), int8=True),
    "web": Format("web", "a page that runs in a browser, in 8 bits", ("onnx", "onnxruntime"), page=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder and print one line."""
    given = _parser().parse_args(arguments)
    form = FORMATS[given.format]
    if given.int8 and not form.int8:
        takers = " and ".join(name for name, one in FORMATS.items() if one.int8)
        raise UserError(f"--int8 has no meaning for --format {given.format}: omit it, or use {takers}")
    layers = given.layer or [0]
    if len(layers) > (2 if form.page else 1):
        raise UserError(f"--layer is given {len(layers)} times: --format web takes two exits, other formats one")
    if form.page and given.runtime is None:
        raise UserError("--format web needs --runtime: the folder of the unpacked npm package onnxruntime-web")
    if given.runtime is not None and not form.page:
        raise UserError(f"--runtime has no meaning for --format {given.format}: omit it, or use web")
    require(form.needs, "export", f"--format {given.format}")
    licence = card.check_license(given.license)
    _check_empty(given.out)
    module: Any = importlib.import_module(f"fairseq_skd.exporting.{form.module}")
    if form.page:
        module.check_runtime(given.runtime)
    rec, *beside = (_load(given.checkpoint, layer) for layer in layers)
    if any(other.exits == rec.exits for other in beside):
        raise UserError(f"--layer names exit {rec.exits[0]} twice: give two exits, or one")
    options = {"int8": given.int8} if form.int8 else {"runtime": given.runtime, "beside": beside} if form.page else {}
    results = card.read_results(given.results, rec) if given.results else None
    typed = shlex.join(["python", "-m", "fairseq_skd.export", *(sys.argv[1:] if arguments is None else arguments)])
    with staged(given.out) as stage, working(f"writing {given.out}"):
        module.write(rec, stage, **options)
        card.write_card(rec, stage, given.format, typed, licence, results)
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    print(
        f"{given.out}: {given.format}, {rec.exits[0]} of {rec.depth} layers, {rec.parameters / 1e6:.1f} M parameters, "
        f"{size / 1e6:.1f} MB"
    )


def _load(checkpoint: str, layer: int) -> Recognizer:
    trained = open_trained(absolute(checkpoint))
    try:
        check_exit(layer, trained.students, trained.depth)
    except NoExitError as error:
        raise UserError(f"--layer {layer}: {error}") from error
    return Recognizer(trained, (layer,), "cpu", torch.float32)


def _check_empty(out: Path) -> None:
    """Check that the folder is new or empty; leftovers of a killed export do not count."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give the name of a new folder")
    if out.is_dir() and not all(entry.name.startswith(PREFIX) for entry in out.iterdir()):
        raise UserError(f"--out {out} is not empty: remove it, or give another folder")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.export",
        description="Write one exit of a fine-tuned checkpoint as a self-contained folder with a model card.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a training, or an exported folder (fairseq, hf)")
    parser.add_argument(
        "--layer",
        type=int,
        action="append",
        metavar="L",
        help="layer count of a student; 0, the default: the full model. web: give it twice to compare two exits",
    )
    parser.add_argument(
        "--format", required=True, choices=FORMATS, help="; ".join(f"{n}: {f.summary}" for n, f in FORMATS.items())
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--int8", action="store_true", help="onnx and sherpa: also write the model with int8 products")
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="web: the unpacked npm package onnxruntime-web")
    parser.add_argument("--license", default="unknown", metavar="NAME", help="licence in the model card, such as mit")
    parser.add_argument("--results", type=Path, metavar="DIR", help="results of fairseq_skd.infer for the model card")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.export", main))
