"""Format ``onnx``: a graph for ONNX Runtime, and a decoder that needs neither torch nor fairseq.

The graph does everything between audio and log posteriors: it scales the audio if the checkpoint
was trained so, and adds the blank weight. It takes any number of utterances of any length.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fairseq_skd.encoders.trunk import normalize_real
from fairseq_skd.errors import UserError
from fairseq_skd.exporting.decode import MARKS
from fairseq_skd.files.progress import working
from fairseq_skd.onnx_recognizer import CONFIG, FLOAT, INT8, TOKENS
from fairseq_skd.recognizer import Recognizer

OPSET = 17
_MOST_BYTES = 2**31 - 2**24  # of weights; protobuf, which ONNX files are made of, ends at 2 GiB
_EPS = 1e-5  # layer_norm's, by which audio is scaled in training
Axes = Mapping[str, Sequence[str]]  # name of an input or output -> names of its first axes, which are dynamic


class Graph(nn.Module):
    """What ``model.onnx`` computes.

    Args:
        rec: loaded at one exit.
    """

    def __init__(self, rec: Recognizer) -> None:
        super().__init__()
        self.model, self.normalize = rec.model, rec.waveforms.normalize

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log posteriors.

        Args:
            x: (N, samples) in [-1, 1], as read from a file; samples after ``lengths`` are ignored.
            lengths: (N,) int64, real samples.

        Returns:
            (N, T, V) log posteriors, certainly blank on padded frames; and (N,) int64, real frames.
        """
        lengths = lengths.clamp(max=x.size(1))
        padding = torch.arange(x.size(1), device=x.device) >= lengths.unsqueeze(1)
        x = normalize_real(x, lengths, _EPS) if self.normalize else x.masked_fill(padding, 0)
        out = self.model(source=x, padding_mask=padding)
        return self.model.get_normalized_probs(out, log_probs=True).transpose(0, 1), out["frame_lengths"]


def write(rec: Recognizer, folder: Path, int8: bool = False) -> None:
    """Write ``model.onnx``, ``tokens.txt``, ``config.json`` and ``decode.py``.

    Args:
        rec: loaded at one exit, on the CPU, in float32.
        folder: an existing folder.
        int8: write ``model.int8.onnx``, too, whose matrix products are in 8 bits.

    Raises:
        UserError: the checkpoint has no dictionary, its ``post_process`` is not one that
            ``decode.py`` knows, or the model is above 2 GB.
    """
    config = configuration(rec)
    example = example_audio(rec)
    lengths = torch.tensor([example.size(1), example.size(1) - rec.frame_grid.step])
    axes = {"x": ("N", "samples"), "lengths": ("N",), "log_probs": ("N", "T"), "frame_lengths": ("N",)}
    export(rec, Graph(rec), (example, lengths), axes, folder, int8)
    write_tokens(rec.symbols, folder / TOKENS)
    lines = ",\n".join(f' "{key}": {json.dumps(value)}' for key, value in config.items())
    (folder / CONFIG).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("decode.py"), folder / "decode.py")


def configuration(rec: Recognizer) -> dict[str, object]:
    """Collect what a decoder has to know besides the graph and its symbols.

    Raises:
        UserError: ``post_process`` is not one that ``decode.py`` knows.
    """
    if rec.post_process not in (*MARKS, "none"):
        raise UserError(
            f"checkpoint {rec.path}: its criterion.post_process={rec.post_process} cannot be exported to ONNX: only "
            f"{', '.join(MARKS)} and none can; use --format fairseq"
        )
    return {
        "format": "fairseq_skd.onnx",
        "version": 1,
        "opset": OPSET,
        "layers": rec.exits[0],
        "parameters": rec.parameters,
        "sample_rate": rec.sample_rate,
        "normalize": rec.waveforms.normalize,
        "post_process": rec.post_process,
        "blank": 0,
        "shortest": rec.waveforms.shortest,
        "frame_seconds": rec.frame_seconds,
        "kernels": rec.frame_grid.kernels,
        "strides": rec.frame_grid.strides,
        "multiple": rec.frame_grid.multiple,
    }


def write_tokens(symbols: Sequence[str], path: Path) -> None:
    """Write one line ``symbol id`` per symbol."""
    lines = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
    path.write_text(lines, encoding="utf-8", newline="\n")


def example_audio(rec: Recognizer) -> Tensor:
    """Make audio to trace a graph with, (2, samples); its values and its length are not kept."""
    frames = 10 + 2 * rec.frame_grid.multiple
    samples = rec.waveforms.shortest + rec.frame_grid.step * frames
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


def export(
    rec: Recognizer, graph: nn.Module, example: tuple[Tensor, ...], axes: Axes, folder: Path, int8: bool
) -> None:
    """Trace a graph, and write ``model.onnx`` and perhaps ``model.int8.onnx``.

    Args:
        rec: for messages.
        graph: in evaluation mode.
        example: its inputs.
        axes: dynamic axes of inputs and outputs, the inputs first.
        folder: where to write.
        int8: write the second file, too.

    Raises:
        UserError: the model is above 2 GB.
    """
    if 4 * rec.parameters > _MOST_BYTES:
        raise UserError(
            f"checkpoint {rec.path} has {rec.parameters:,} parameters at this exit: an ONNX file holds at most 2 GB; "
            f"choose a student, or --format fairseq or hf"
        )
    names = list(axes)
    with working("exporting to ONNX"), warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of each assertion on a shape, and of its age. The newer exporter needs
        # onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            example,
            str(folder / FLOAT),
            input_names=names[: len(example)],
            output_names=names[len(example) :],
            dynamic_axes={name: dict(enumerate(of)) for name, of in axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )
        if int8:
            quantize(folder / FLOAT, folder / INT8)


def quantize(source: Path, target: Path) -> None:
    """Write a copy of a model whose products of activations with weights are in 8 bits.

    Convolutions stay in float32: in 8 bits they are slower, and change more texts. Weights have a
    scale per column and use 7 of the 8 bits. With 8, x86 processors without VNNI instructions
    saturate the sum of two products and give other results.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it logs each tensor that it leaves as it is
    try:
        quantize_dynamic(source, target, ["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
