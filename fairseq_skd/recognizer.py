"""Run a fine-tuned checkpoint at its exits: audio in, logits or texts out.

Python users and all commands run checkpoints through this module.
"""

import contextlib
import functools
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from fairseq.data import Dictionary
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
from fairseq_skd.search.beam import BeamOptions, BeamSearch
from fairseq_skd.transcription.transcribing import Transcriber
from fairseq_skd.transcription.words import Transcript

# fairseq's encoders call this deprecated function. Appended, so that a user's own filter wins.
warnings.filterwarnings("ignore", r"`torch\.nn\.utils\.weight_norm` is deprecated", FutureWarning, append=True)


class NotFiniteError(UserError):
    """Logits hold NaN or Inf.

    Attributes:
        exit_layer: the exit, as a layer count.
        row: index of the first such utterance in the batch.
    """

    def __init__(self, exit_layer: int, row: int) -> None:
        super().__init__(
            f"the output of exit {exit_layer} is not finite for utterance {row} of the batch: check the checkpoint's "
            f"weights, or use float32"
        )
        self.exit_layer, self.row = exit_layer, row


class DeviceMemoryError(UserError, RuntimeError):
    """The GPU is out of memory. fairseq's trainer skips a batch with that error text."""

    def __init__(self) -> None:
        super().__init__("the GPU is out of memory: use a smaller batch")


class FramesError(UserError):
    """Two encoders make different frames of the same audio."""

    def __init__(self, ours: FrameGrid, theirs: FrameGrid) -> None:
        super().__init__(f"the two make different frames of the same audio ({ours} against {theirs})")


class SymbolsError(UserError):
    """Two models, or a model and a dictionary, have different symbols.

    Attributes:
        sizes: number of symbols of each.
        difference: the first difference.
    """

    def __init__(self, ours: Sequence[str], theirs: Sequence[str], difference: Difference) -> None:
        self.sizes, self.difference = (len(ours), len(theirs)), difference
        super().__init__(f"the two have different symbols: {difference.describe('the first', 'the second')}")


def check_frames(ours: FrameGrid, theirs: FrameGrid) -> None:
    """Check that two encoders make the same frames.

    Raises:
        FramesError: their frame grids differ.
    """
    if ours != theirs:
        raise FramesError(ours, theirs)


def check_symbols(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Check that two dictionaries have the same symbols in the same order.

    Raises:
        SymbolsError: their symbols differ.
    """
    if difference := first_difference(ours, theirs):
        raise SymbolsError(ours, theirs, difference)


class Output(NamedTuple):
    """Logits of one batch.

    Attributes:
        logits: exit (a layer count) -> (T, B, V).
        lengths: (B,) real frames; logits of padded frames have no meaning.
    """

    logits: dict[int, Tensor]
    lengths: Tensor

    def check_finite(self) -> None:
        """Check that all logits are finite.

        Raises:
            NotFiniteError: the logits of an exit hold NaN or Inf.
        """
        for layer, logits in self.logits.items():
            finite = torch.isfinite(logits).all(dim=2).all(dim=0)  # (T, B, V) -> (B,)
            if not bool(finite.all()):
                raise NotFiniteError(layer, int((~finite).int().argmax()))


class Recognizer:
    """A fine-tuned ``skd_ctc`` checkpoint, ready to run; see :func:`load`.

    It is not a ``torch.nn.Module``. A module in a criterion would be saved in every checkpoint,
    wrapped for data-parallel training and given to the optimiser. Several threads may share a
    recognizer: their passes through the encoder take turns.

    Args:
        trained: from :func:`~fairseq_skd.models.trained.open_trained`; its weights are emptied.
        exits: layer counts, 0 for the full model; None: all trained exits, the full model first.
        device: None: CUDA if there is a GPU, else the CPU.
        dtype: precision of the computation; None: float32.

    Attributes:
        path: the checkpoint.
        model: the network at these exits, in evaluation mode.
        config: the training configuration as plain Python.
        updates: number of updates that the training had done; None if the file does not say.
        depth: L, the number of layers of the full model.
        exits: layer counts, in the order of the argument.
        parameters: number of parameters that these exits use.
        waveforms: how audio is prepared for the encoder.
        frame_grid: the samples that each frame covers.
        device: device of the model.
        dtype: precision of the computation.

    Raises:
        UserError: an exit or the device does not exist, ``exits`` is empty, weights hold NaN or Inf
            or do not fit the configuration, or the dictionary and the heads differ in size.
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
        self.config, self.updates = trained.config, trained.updates
        self.frame_grid = trained.encoder.frame_grid
        self.waveforms = trained.waveforms
        self._post_process = trained.post_process
        check_finite(trained.weights, f"checkpoint {trained.path}")
        self.model = _build(trained, self.exits)
        self.parameters = sum(p.numel() for name, p in self.model.named_parameters() if not name.endswith("mask_emb"))
        self._turn = threading.Lock()
        self.to(device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype or torch.float32)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Recognizer":
        """Move the model to a device and a precision.

        Raises:
            UserError: the device does not exist, or cannot hold the model.
        """
        with self._turn:
            try:
                self.model.to(device=torch.device(device), dtype=dtype)
            except (RuntimeError, AssertionError, TypeError) as error:  # torch's errors about devices and types
                reason = str(error).partition("\n")[0]
                raise UserError(f"the model cannot be moved to device={device}, dtype={dtype}: {reason}") from error
            self.device, self.dtype = torch.device(device), dtype
        return self

    @property
    def sample_rate(self) -> int:
        """Sampling rate of the model's audio, in Hz."""
        return self.waveforms.sample_rate

    @property
    def frame_seconds(self) -> float:
        """Time from one frame to the next, in seconds."""
        return self.frame_grid.step / self.sample_rate

    @property
    def dictionary(self) -> Dictionary:
        """Dictionary of the training labels.

        Raises:
            UserError: the checkpoint holds no dictionary.
        """
        if self._dictionary is None:
            raise UserError(f"checkpoint {self.path} holds no dictionary: use its logits only")
        return self._dictionary

    @property
    def symbols(self) -> list[str]:
        """Symbols of the logits by index; index 0 is the blank."""
        return list(self.dictionary.symbols)

    @property
    def post_process(self) -> str:
        """How units become words: one of fairseq's ``post_process`` names.

        Raises:
            UserError: the checkpoint's name is unknown, or does not fit its dictionary.
        """
        return fitting_post_process(
            self._post_process, self.symbols, f"checkpoint {self.path}: its criterion.post_process"
        )

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 hash of the checkpoint's file."""
        return file_hash(self.path)

    def batch(self, audio: Sequence[Audio]) -> tuple[Tensor, Tensor]:
        """Read audio, check its sampling rate, scale it and pad it to a batch.

        Args:
            audio: paths, or arrays (samples,) at the model's sampling rate.

        Returns:
            ``source`` (B, samples) and ``padding_mask`` (B, samples) bool, true on padding.

        Raises:
            UserError: audio cannot be used, see
                :meth:`~fairseq_skd.files.waveforms.Waveforms.read`.
        """
        return self.waveforms.batch(audio)

    @torch.no_grad()
    def __call__(self, source: Tensor, padding_mask: Tensor | None = None) -> Output:
        """Compute the logits of all exits in one pass through the encoder.

        The logits of an utterance do not depend on its batch.

        Args:
            source: (B, samples), scaled as in :meth:`batch`.
            padding_mask: (B, samples) bool, true on padding; None: no padding.

        Raises:
            DeviceMemoryError: the batch is too large for the GPU.
        """
        source = source.to(self.device, self.dtype)
        padding_mask = padding_mask.to(self.device) if padding_mask is not None else None
        try:
            with self._turn:
                net = self.model(source=source, padding_mask=padding_mask)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceMemoryError from error
        return Output({layer: net["exit_logits"][layer] for layer in self.exits}, net["frame_lengths"])

    def transcriber(
        self, exit_layer: int | None = None, nbest: int = 1, search: BeamSearch | None = None
    ) -> Transcriber:
        """Return what transcribes and aligns audio file by file, for long lists of audio.

        Arguments and errors: see :meth:`transcribe`.
        """
        layer = self.exits[0] if exit_layer is None else exit_layer
        if layer not in self.exits:
            raise UserError(f"exit_layer={layer} was not loaded: choose one of {', '.join(map(str, self.exits))}")
        if nbest < 1:
            raise UserError(f"nbest={nbest} is out of range: it must be at least 1")
        if nbest > 1 and search is None:
            search = BeamSearch(self.symbols, 0, BeamOptions(), None, None)

        def run(windows: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
            out = self(*self.batch(windows))
            out.check_finite()
            log_probs = out.logits[layer].float().log_softmax(dim=-1).transpose(0, 1).cpu().numpy()  # (B, T, V)
            return [frames[:length] for frames, length in zip(log_probs, out.lengths.tolist(), strict=True)]

        return Transcriber(
            run, self.waveforms, self.frame_grid, self.dictionary, self.post_process, search=search, nbest=nbest
        )

    def transcribe(
        self,
        audio: Sequence[Audio],
        exit_layer: int | None = None,
        batch_size: int = 8,
        nbest: int = 1,
        search: BeamSearch | None = None,
    ) -> list[Transcript]:
        """Transcribe audio of any length; returns one transcript per utterance.

        Args:
            audio: paths of files of any sampling rate and number of channels, or arrays (samples,)
                at the model's rate. Audio of more than 30 s is cut into windows.
            exit_layer: one of :attr:`exits`; None: the first.
            batch_size: windows per batch at most; it changes only time and memory.
            nbest: transcripts to find; more than 1 needs flashlight-text.
            search: beam search with a language model or phrases, see
                :func:`~fairseq_skd.transcription.language.beam_search`; None: greedy search, or for
                ``nbest`` above 1 a beam search over units, whose best text is the greedy one.

        Raises:
            UserError: audio cannot be used, ``exit_layer`` is not in :attr:`exits`, the checkpoint
                has no dictionary, memory is exhausted, or logits are not finite.
        """
        transcriber = self.transcriber(exit_layer, nbest, search)
        check_list(audio)
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is out of range: it must be at least 1")
        return [found for _, found in transcriber.transcribe(audio, batch_size)]


def load(
    path: str | os.PathLike[str],
    exits: Sequence[int] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Recognizer:
    """Open a fine-tuned checkpoint for recognition. No code in the file is executed.

    >>> rec = load("tests/goldens/hubert.pt", exits=(4, 2), device="cpu")
    >>> audio = ["tests/goldens/corpus/test1.flac", "tests/goldens/corpus/test2.flac"]
    >>> rec.transcribe(audio, exit_layer=4)[0].text
    'IT IS'
    >>> out = rec(*rec.batch(audio))
    >>> {exit_layer: tuple(logits.shape) for exit_layer, logits in out.logits.items()}  # (T, B, V)
    {4: (49, 2, 32), 2: (49, 2, 32)}
    >>> out.lengths
    tensor([49, 33])

    Args:
        path: checkpoint of ``fairseq-hydra-train`` with model ``skd_ctc``, or a folder that
            ``python -m fairseq_skd.export`` wrote in the format ``fairseq``, ``hf`` or ``onnx``.
        exits: layer counts, 0 for the full model; None: all trained exits, the full model first.
            Layers above the deepest exit are neither loaded nor computed.
        device: None: CUDA if there is a GPU, else the CPU.
        dtype: precision of the computation; None: float32.

    Raises:
        UserError: the file is not such a checkpoint, or an exit or the device does not exist.
    """
    from fairseq_skd.onnx_recognizer import OnnxRecognizer, is_onnx  # here: its class is based on ours

    place = absolute(os.fspath(path))
    if is_onnx(place):
        return OnnxRecognizer(place, exits, device, dtype)
    return Recognizer(open_trained(place), exits, device, dtype)


def _build(trained: TrainedModel, exits: Sequence[int]) -> SkdCtc:
    """Build the model up to its deepest exit, in evaluation mode, with the checkpoint's weights."""
    cfg = OmegaConf.merge(OmegaConf.structured(SkdCtcConfig), trained.config["model"])
    with _silent_fairseq():
        model = SkdCtc(cfg, trained.encoder, trained.symbols, exits)
    try:
        model.load_state_dict(dict(trained.weights), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"checkpoint {trained.path}: its weights do not fit its configuration: {reason}") from error
    trained.weights.clear()  # or weights above the exits would stay in memory
    return model.requires_grad_(False).eval()


@contextlib.contextmanager
def _silent_fairseq() -> Iterator[None]:
    """Drop the INFO lines of fairseq's ``HubertModel``, which print its whole configuration.

    A filter per call and not the logger's level, so that several threads can load at once.
    """

    def is_warning(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger = logging.getLogger("fairseq.models.hubert.hubert")
    logger.addFilter(is_warning)
    try:
        yield
    finally:
        logger.removeFilter(is_warning)
