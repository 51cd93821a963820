"""``python -m fairseq_skd.export``: write one exit of a checkpoint for other programs."""

import argparse
import importlib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, require, run_command

_EXAMPLES = """\
examples
the student of six layers, without its teacher and without the optimizer's state:
  python -m fairseq_skd.export /runs/skd/checkpoint_best.pt --layer 6 --format fairseq --out /runs/skd/student
the full model for Hugging Face transformers:
  python -m fairseq_skd.export /runs/skd/checkpoint_best.pt --format hf --out /runs/skd/hf --license mit
"""


class Format(NamedTuple):
    """A format of an exported folder.

    Attributes:
        module: in ``fairseq_skd.exporting``; its ``write(rec, folder)`` writes the files. It is
            imported when the format is asked for.
        summary: for ``--help``.
        needs: libraries of the extra ``export`` that it needs.
        int8: whether ``write`` takes ``int8``.
    """

    module: str
    summary: str
    needs: tuple[str, ...] = ()
    int8: bool = False


FORMATS = {
    "fairseq": Format("fairseq_file", "checkpoint.pt without the optimizer's state, for fairseq and this package"),
    "hf": Format("huggingface", "a folder for Hugging Face transformers"),
    "onnx": Format("onnx", "a model for ONNX Runtime", ("onnx", "onnxruntime"), int8=True),
    "sherpa": Format("sherpa", "a model for sherpa-onnx", ("onnx", "onnxruntime"), int8=True),
    "web": Format("web", "a page that runs in a browser", ("onnx", "onnxruntime")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the folder and print one line."""
    given = _parser().parse_args(arguments)
    form = FORMATS[given.format]
    if given.int8 and not form.int8:
        takers = " and ".join(name for name, one in FORMATS.items() if one.int8)
        raise UserError(f"--int8 has no meaning for --format {given.format}: omit it, or choose {takers}")
    require(form.needs, "export", f"--format {given.format}")
    write = importlib.import_module(f"fairseq_skd.exporting.{form.module}").write
    raise NotImplementedError(write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.export",
        description="Write one exit of a fine-tuned checkpoint as a self-contained folder with a model card.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of a training, or an exported folder (fairseq, hf)")
    parser.add_argument("--layer", type=int, default=0, metavar="L", help="layer count of a student; 0: the full model")
    parser.add_argument("--format", required=True, choices=FORMATS, help="; ".join(f"{n}: {f.summary}" for n, f in FORMATS.items()))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--int8", action="store_true", help="onnx and sherpa: also write the model with int8 products")
    parser.add_argument("--license", default="unknown", metavar="NAME", help="licence in the model card, such as mit")
    parser.add_argument("--results", type=Path, metavar="DIR", help="results of fairseq_skd.infer for the model card")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.export", main))
