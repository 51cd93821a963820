"""A fine-tuned checkpoint at its exits: audio in, logits or texts out. The way in from Python, and of every command."""

import functools
import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process
from omegaconf import OmegaConf
from torch import Tensor

from fairseq_skd.encoders.convolutions import FrameGrid
from fairseq_skd.encoders.weight_files import check_finite
from fairseq_skd.errors import UserError
from fairseq_skd.files.dictionaries import Difference, first_difference, fitting_post_process
from fairseq_skd.files.disk import absolute, file_hash
from fairseq_skd.files.waveforms import Audio, check_list
from fairseq_skd.models.config import SkdCtcConfig
from fairseq_skd.models.heads import check_exit
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.search.greedy import greedy_units


class NotFiniteError(UserError):
    """Logits hold NaN or Inf.

    Attributes:
        exit_layer: the exit, as a layer count.
        row: the first such utterance of the batch.
    """

    def __init__(self, exit_layer: int, row: int) -> None:
        super().__init__(
            f"the output of exit {exit_layer} is not finite for utterance {row} of the batch: the checkpoint's weights "
            f"or the precision are at fault"
        )
        self.exit_layer, self.row = exit_layer, row


class DeviceMemoryError(UserError, RuntimeError):
    """The GPU's memory is exhausted. fairseq's trainer knows it by its text, and skips the batch."""

    def __init__(self) -> None:
        super().__init__("the GPU is out of memory: make the batch smaller")  # "out of memory": see above


class FramesError(UserError):
    """Two encoders make other frames of the same audio."""

    def __init__(self, ours: FrameGrid, theirs: FrameGrid) -> None:
        super().__init__(f"the two make other frames of the same audio ({ours} against {theirs})")


class SymbolsError(UserError):
    """Two models, or a model and a dictionary, have other symbols.

    Attributes:
        sizes: how many symbols each has.
        difference: the first.
    """

    def __init__(self, ours: Sequence[str], theirs: Sequence[str], difference: Difference) -> None:
        self.sizes, self.difference = (len(ours), len(theirs)), difference
        super().__init__(f"the two have other symbols: {difference.describe('the first', 'the second')}")


def check_frames(ours: FrameGrid, theirs: FrameGrid) -> None:
    """Check that two encoders make the same frames.

    Raises:
        FramesError: they do not.
    """
    if ours != theirs:
        raise FramesError(ours, theirs)


def check_symbols(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Check that two dictionaries have the same symbols in the same order.

    Raises:
        SymbolsError: they do not.
    """
    if difference := first_difference(ours, theirs):
        raise SymbolsError(ours, theirs, difference)


class Output(NamedTuple):
    """Logits of one batch.

    Attributes:
        logits: exit, as a layer count -> (T, B, V).
        lengths: (B,) real frames; logits behind them have no meaning.
    """

    logits: dict[int, Tensor]
    lengths: Tensor

    def check_finite(self) -> None:
        """Check all logits.

        Raises:
            NotFiniteError: some are NaN or Inf.
        """
        for layer, logits in self.logits.items():
            finite = torch.isfinite(logits).all(dim=2).all(dim=0)  # (T, B, V) -> (B,)
            if not bool(finite.all()):
                raise NotFiniteError(layer, int((~finite).int().argmax()))


class Recognizer:
    """A fine-tuned ``skd_ctc`` checkpoint, ready to run; see :func:`load`.

    It is no ``torch.nn.Module``: one that a criterion holds would be saved in every checkpoint, wrapped for
    data-parallel training and handed to the optimiser. Several threads may use one recognizer: their passes through
    the encoder take turns.

    Args:
        trained: from :func:`~fairseq_skd.models.trained.open_trained`; its weights are used up.
        exits: layer counts, 0 for the full model; None: all that were trained, the full model first.
        device: None is CUDA where there is a GPU, else the CPU.
        dtype: what it computes in; None is float32.

    Attributes:
        path: the checkpoint.
        depth: L.
        exits: layer counts, as they were asked for.
        parameters: numbers that recognition at these exits uses.
        waveforms: how the encoder takes its audio.
        frame_grid: which samples each frame is of.
        device: where the model is.
        dtype: what it computes in.

    Raises:
        UserError: no such exit or device, or no exit at all; weights that hold NaN or Inf, or do not fit the
            configuration; or a dictionary of another size than the heads.
    """

    def __init__(
        self,
        trained: TrainedModel,
        exits: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        wanted = (0, *trained.students) if exits is None else (exits,) if isinstance(exits, int) else tuple(exits)
        if not wanted:
            raise UserError("exits is empty: give layer counts, 0 for the full model")
        if trained.dictionary is not None and len(trained.dictionary) != trained.symbols:
            raise UserError(
                f"checkpoint {trained.path} is damaged: its dictionary has {len(trained.dictionary)} symbols, its CTC "
                f"heads have {trained.symbols}"
            )
        self.exits = tuple(dict.fromkeys(check_exit(layer, trained.students, trained.depth) for layer in wanted))
        self.path, self.depth, self._dictionary = trained.path, trained.depth, trained.dictionary
        self.frame_grid = trained.encoder.frame_grid
        self.waveforms = trained.waveforms
        self._post_process = trained.post_process
        check_finite(trained.weights, f"checkpoint {trained.path}")
        self._model = _build(trained, self.exits)
        self.parameters = sum(p.numel() for name, p in self._model.named_parameters() if not name.endswith("mask_emb"))
        self._turn = threading.Lock()
        try:
            self.to(device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype or torch.float32)
        except (RuntimeError, AssertionError, TypeError) as error:  # what torch raises over devices and types
            reason = str(error).partition("\n")[0]
            raise UserError(f"the model cannot be moved to device={device}, dtype={dtype}: {reason}") from error

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Recognizer":
        """Move the model."""
        self.device, self.dtype = torch.device(device), dtype
        self._model.to(device=self.device, dtype=dtype)
        return self

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.waveforms.sample_rate

    @property
    def frame_seconds(self) -> float:
        """From one frame to the next."""
        return self.frame_grid.step / self.sample_rate

    @property
    def dictionary(self) -> Dictionary:
        """Symbols of the training labels.

        Raises:
            UserError: the checkpoint holds no dictionary.
        """
        if self._dictionary is None:
            raise UserError(f"checkpoint {self.path} holds no dictionary: only its logits can be used")
        return self._dictionary

    @property
    def symbols(self) -> list[str]:
        """Symbols that the logits are of, by index; 0 is the blank."""
        return list(self.dictionary.symbols)

    @property
    def post_process(self) -> str:
        """How units become words, one of fairseq's ``post_process`` names.

        Raises:
            UserError: the checkpoint names an unknown one, or one that does not fit its dictionary.
        """
        return fitting_post_process(
            self._post_process, self.symbols, f"checkpoint {self.path}: its criterion.post_process"
        )

    @functools.cached_property
    def sha256(self) -> str:
        """Of the checkpoint's file."""
        return file_hash(self.path)

    def batch(self, audio: Sequence[Audio]) -> tuple[Tensor, Tensor]:
        """Read, check the sampling rate, scale and pad.

        Args:
            audio: paths, or arrays (samples,) at the model's sampling rate.

        Returns:
            ``source`` (B, samples) and ``padding_mask`` (B, samples) bool, true on padding.

        Raises:
            UserError: see :meth:`~fairseq_skd.files.waveforms.Waveforms.read`.
        """
        return self.waveforms.batch(audio)

    @torch.no_grad()
    def __call__(self, source: Tensor, padding_mask: Tensor | None = None) -> Output:
        """One pass through the encoder.

        An utterance has the same logits in any batch.

        Args:
            source: (B, samples) as :meth:`batch` makes it: scaled.
            padding_mask: (B, samples) bool, true on padding; None: there is none.

        Raises:
            DeviceMemoryError: the batch is too large for the GPU.
        """
        source = source.to(self.device, self.dtype)
        padding_mask = padding_mask.to(self.device) if padding_mask is not None else None
        try:
            with self._turn:
                net = self._model(source=source, padding_mask=padding_mask)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceMemoryError from error
        return Output({layer: net["exit_logits"][layer] for layer in self.exits}, net["frame_lengths"])

    def transcribe(self, audio: Sequence[Audio], exit_layer: int | None = None, batch_size: int = 8) -> list[str]:
        """The text of each utterance, decoded greedily.

        Args:
            audio: see :meth:`batch`.
            exit_layer: one of :attr:`exits`; None: the first.
            batch_size: utterances in a batch; it changes time and memory only.

        Raises:
            UserError: audio that cannot be read, an exit that was not asked for, no dictionary, too little memory; or
                logits that are not finite.
        """
        layer = self.exits[0] if exit_layer is None else exit_layer
        if layer not in self.exits:
            raise UserError(f"exit_layer={layer} was not asked for, there are: {', '.join(map(str, self.exits))}")
        check_list(audio)
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range, it is at least 1")
        process = self.post_process
        texts: list[str] = []
        for first in range(0, len(audio), batch_size):
            out = self(*self.batch(audio[first : first + batch_size]))
            out.check_finite()
            found = greedy_units(out.logits[layer], out.lengths)
            texts += (post_process(self.dictionary.string(units), process) for units in found)
        return texts


def load(
    path: str | os.PathLike[str],
    exits: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Recognizer:
    """Open a fine-tuned checkpoint. Nothing in the file is run.

    >>> rec = load("tests/goldens/hubert.pt", exits=(4, 2), device="cpu")
    >>> source, padding_mask = rec.batch(["tests/goldens/corpus/test1.flac", "tests/goldens/corpus/test2.flac"])
    >>> out = rec(source, padding_mask)
    >>> {layer: tuple(logits.shape) for layer, logits in out.logits.items()}, out.lengths.tolist()
    ({4: (49, 2, 32), 2: (49, 2, 32)}, [49, 33])
    >>> rec.transcribe(["tests/goldens/corpus/test1.flac"])
    ['IT IS']

    Args:
        path: written by ``fairseq-hydra-train`` with model ``skd_ctc``.
        exits: layer counts, 0 for the full model; None: all that were trained, the full model first. Layers above the
            deepest are neither kept nor computed.
        device: None is CUDA where there is a GPU, else the CPU.
        dtype: what it computes in; None is float32.

    Raises:
        UserError: not such a checkpoint, or no such exit.
    """
    return Recognizer(open_trained(absolute(os.fspath(path))), exits, device, dtype)


def _build(trained: TrainedModel, exits: Sequence[int]) -> SkdCtc:
    """The model up to its deepest exit, in evaluation mode, with the checkpoint's weights."""
    cfg = OmegaConf.merge(OmegaConf.structured(SkdCtcConfig), trained.config["model"])
    model = SkdCtc(cfg, trained.encoder, trained.symbols, exits)
    try:
        model.load_state_dict(dict(trained.weights), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"checkpoint {trained.path}: its weights do not fit its configuration: {reason}") from error
    trained.weights.clear()  # those above the exits would stay in memory
    return model.requires_grad_(False).eval()
