"""Run an exported ONNX folder in place of a checkpoint.

``fairseq_skd.load`` opens it. The folder may come from a stranger: its configuration is read with
types and bounds checked, and a graph that names further files is refused. ONNX Runtime up to at
least 1.23 would read any file that such a graph names.
"""

import json
import mmap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_skd.encoders.convolutions import LARGEST, MOST_LAYERS, FrameGrid
from fairseq_skd.errors import UserError, require, shown
from fairseq_skd.files.units import is_symbol
from fairseq_skd.files.waveforms import Waveforms
from fairseq_skd.models.heads import check_exit
from fairseq_skd.recognizer import Output, Recognizer

FLOAT, INT8, TOKENS, CONFIG = "model.onnx", "model.int8.onnx", "tokens.txt", "config.json"
_MOST_BYTES = {TOKENS: 16_000_000, CONFIG: 1_000_000}
_LIMITS = {"sample_rate": 1_000_000, "layers": 200, "multiple": 1_000, "parameters": 2**40}
_FURTHER_FILE = b"location"  # the key, in a tensor of a graph, of the file that holds its values
_INPUTS = {"x": "tensor(float)", "lengths": "tensor(int64)"}
_OUTPUTS = {"log_probs": "tensor(float)", "frame_lengths": "tensor(int64)"}


def is_onnx(path: Path) -> bool:
    """Whether a path is an ONNX file, or a folder with one of ours."""
    return path.suffix == ".onnx" or (path / FLOAT).is_file() or (path / INT8).is_file()


class OnnxRecognizer(Recognizer):
    """An exported ONNX folder, ready to run on the CPU; see :func:`fairseq_skd.recognizer.load`.

    Its one exit is its full model. Its logits are log posteriors, those of padded frames are zero.

    Args:
        path: the folder, whose ``model.int8.onnx`` is preferred to ``model.onnx``; or one of the
            two files.
        exits: None, or the one exit.
        device: None or the CPU.
        dtype: None or float32.

    Raises:
        UserError: onnxruntime is not installed, another exit, device or precision is asked for, or
            the folder is damaged or was written for another program.
    """

    def __init__(
        self,
        path: Path,
        exits: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # it has no TrainedModel, so Recognizer's is not called
        require(["onnxruntime"], "export", f"{path}")
        if path.is_dir():
            path = path / (INT8 if (path / INT8).is_file() else FLOAT)
        folder = path.parent
        config = _read_config(folder)
        self.path, self.depth, self.parameters = str(path), config["layers"], config["parameters"]
        self.config, self.updates = {}, None
        wanted = (0,) if exits is None else (exits,) if isinstance(exits, int) else tuple(exits)
        if not wanted:
            raise UserError("exits is empty: give 0, the exit of the folder")
        self.exits = tuple(dict.fromkeys(check_exit(layer, (), self.depth) for layer in wanted))
        self.frame_grid = FrameGrid(config["kernels"], config["strides"], config["multiple"])
        self.waveforms = Waveforms(config["sample_rate"], False, self.frame_grid.shortest)  # the graph scales audio
        self._post_process = config["post_process"]
        self._dictionary = _read_tokens(folder / TOKENS)
        self._session = _open(path, len(self._dictionary))
        self._turn = threading.Lock()
        self.to(device or "cpu", dtype or torch.float32)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "OnnxRecognizer":
        """Check that the device is the CPU and the precision float32.

        Raises:
            UserError: they are not.
        """
        if torch.device(device).type != "cpu" or dtype != torch.float32:
            raise UserError(f"{self.path} runs on device=cpu with dtype=torch.float32 only: load the checkpoint itself")
        self.device, self.dtype = torch.device("cpu"), dtype
        return self

    def __call__(self, source: Tensor, padding_mask: Tensor | None = None) -> Output:
        """Compute the log posteriors of the exit.

        Utterances run one at a time. On a CPU a batch is no faster, and an int8 model scales its
        activations by the largest in the batch, so that utterances would change each other.

        Args:
            source: (B, samples) in [-1, 1]; the graph scales it if the model was trained so.
            padding_mask: (B, samples) bool, true on padding; None: no padding.

        Raises:
            UserError: the graph cannot be run.
        """
        real = torch.ones_like(source, dtype=torch.bool) if padding_mask is None else ~padding_mask
        log_probs, lengths = [], []
        for wave, samples in zip(source.float(), real.sum(dim=1), strict=True):
            wave = wave[: max(int(samples), self.waveforms.shortest)]
            try:
                found, frames = self._session.run(
                    list(_OUTPUTS), {"x": wave.unsqueeze(0).numpy(), "lengths": samples.unsqueeze(0).numpy()}
                )
            except Exception as error:  # each of ONNX Runtime's errors is a class of its own
                raise UserError(f"{self.path} cannot be run: {shown(error, 300)}") from error
            whole, count = (max(1, self.frame_grid.cut_frames(number)) for number in (len(wave), int(samples)))
            if found.shape != (1, whole, len(self.symbols)) or frames.tolist() != [count]:
                raise UserError(
                    f"{self.path} is damaged: for {len(wave)} samples its log_probs have the shape {found.shape} and "
                    f"its frame_lengths are {shown(frames.tolist())}, but by {CONFIG} there are {whole} frames"
                )
            log_probs.append(torch.from_numpy(found[0]))  # (T, V)
            lengths.append(count)
        return Output({self.exits[0]: torch.nn.utils.rnn.pad_sequence(log_probs)}, torch.tensor(lengths))


def _open(path: Path, symbols: int) -> Any:
    """Open an ONNX Runtime session and check its inputs and outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its errors are raised, too
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(_FURTHER_FILE) >= 0:
                raise UserError(
                    f"{path} keeps weights in further files, which are not read: export the checkpoint again"
                )
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except UserError:
        raise
    except Exception as error:  # each of ONNX Runtime's errors is a class of its own
        raise UserError(f"{path} cannot be read: {shown(error, 300)}") from error
    inputs = {one.name: one.type for one in session.get_inputs()}
    outputs = {one.name: one.type for one in session.get_outputs()}
    shape = session.get_outputs()[0].shape
    if (inputs, outputs) != (_INPUTS, _OUTPUTS):
        raise UserError(
            f"{path} maps {shown(inputs)} to {shown(outputs)}, but {_INPUTS} to {_OUTPUTS} is needed: export the "
            f"checkpoint with --format onnx"
        )
    if len(shape) != 3 or shape[2] != symbols:
        raise UserError(f"{path} is damaged: its log_probs have the shape {shown(shape)}, but {TOKENS} has {symbols}")
    return session


def _read(path: Path) -> str:
    """Read a small text file of the folder."""
    if not path.is_file():  # a device or a pipe may never end
        raise UserError(f"{path} is missing: give a folder of fairseq_skd.export --format onnx (not sherpa, not web)")
    try:
        if path.stat().st_size > _MOST_BYTES[path.name]:
            raise UserError(f"{path} is damaged: it has more than {_MOST_BYTES[path.name]:,} bytes")
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {shown(error)}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    """Read the keys of ``config.json`` that are used here, and check types and bounds."""
    path = folder / CONFIG
    try:
        config = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: it is not JSON ({shown(error)})") from error
    if not isinstance(config, dict) or config.get("format") != "fairseq_skd.onnx" or config.get("version") != 1:
        raise UserError(f"{path} was not written by this version of fairseq_skd: export the checkpoint again")
    for key, most in _LIMITS.items():
        if type(config.get(key)) is not int or not 1 <= config[key] <= most:
            raise UserError(f"{path}: {key}={shown(config.get(key))} is not an integer from 1 to {most:,}")
    for key in ("kernels", "strides"):
        sizes = config.get(key)
        if not isinstance(sizes, list) or not 1 <= len(sizes) <= MOST_LAYERS:
            raise UserError(f"{path}: {key}={shown(sizes)} is not a list of 1 to {MOST_LAYERS} integers")
        if any(type(size) is not int or not 1 <= size <= LARGEST for size in sizes):
            raise UserError(f"{path}: {key}={shown(sizes)} holds a value that is not an integer from 1 to {LARGEST:,}")
        config[key] = tuple(sizes)
    if len(config["kernels"]) != len(config["strides"]):
        raise UserError(f"{path}: kernels and strides differ in number: export the checkpoint again")
    if not isinstance(config.get("post_process"), str):
        raise UserError(f"{path}: post_process={shown(config.get('post_process'))} is not text")
    return config


def _read_tokens(path: Path) -> Dictionary:
    """Read ``tokens.txt``: one line ``symbol id`` per symbol, in the order of the ids."""
    dictionary = Dictionary()
    for index, line in enumerate(_read(path).removesuffix("\n").split("\n")):
        symbol, _, number = line.rpartition(" ")
        standard = index < dictionary.nspecial
        known = symbol == dictionary[index] if standard else is_symbol(symbol) and symbol not in dictionary.indices
        if number != str(index) or not known:
            raise UserError(
                f"{path} line {index + 1} is '{shown(line)}': 'symbol {index}' with a new symbol is expected, after "
                f"{', '.join(Dictionary().symbols)}"
            )
        if not standard:
            dictionary.add_symbol(symbol)
    return dictionary
