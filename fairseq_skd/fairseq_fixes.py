"""Fixes of fairseq: reading labels and audio, writing checkpoints, order of batches, HuBERT's loss.

Differences between versions of fairseq are in :mod:`fairseq_skd.compat`.
"""

import errno
import functools
import multiprocessing.queues
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from fairseq import checkpoint_utils
from fairseq.data import FairseqDataset, FileAudioDataset, HubertDataset, data_utils
from fairseq.file_io import PathManager
from fairseq.models.hubert.hubert import HubertModel
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import replacing

_TRIES, _PAUSE = 3, 2.5  # seconds; fairseq's values, for unreliable file systems


def read_whole_labels() -> None:
    """Make fairseq's ``HubertDataset`` read exactly one transcript per utterance.

    fairseq seeks by bytes, and then reads as many *characters* as the line has bytes. With word
    pieces, whose ``▁`` has three bytes, a target silently includes text of the next lines.
    """
    original = HubertDataset.get_label
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def get_label(self: HubertDataset, index: int, label_idx: int) -> Any:
        if self.store_labels:
            return original(self, index, label_idx)
        first, stop = self.label_offsets_list[label_idx][index]
        with open(self.label_paths[label_idx], "rb") as file:
            file.seek(first)
            label = file.read(stop - first).decode("utf-8")
        return label if self.label_processors is None else self.label_processors[label_idx](label)

    HubertDataset.get_label = get_label


def check_audio_files() -> None:
    """Make fairseq's data sets of audio files name a file that cannot be used.

    A file cannot be used if reading it fails, if it decodes to another number of samples than the
    manifest lists, or if a sample is not finite. Then the data sets raise
    :class:`~fairseq_skd.errors.UserError`, also in a worker process. Its cause holds the reason
    without the file name.
    """

    def checked(original: Callable[..., Any], samples: Callable[[Any], Tensor]) -> Callable[..., Any]:
        @functools.wraps(original)
        def read(self: Any, index: int) -> Any:
            try:
                found = original(self, index)
                if fault := _fault(samples(found), int(self.sizes[index])):
                    raise RuntimeError(fault)
            except Exception as error:
                if not _about_the_file(error):
                    raise
                reason = str(error) or type(error).__name__
                raise UserError(f"audio file {audio_file(self, index)} cannot be used: {reason}") from error
            return found

        return read

    if hasattr(HubertDataset.get_audio, "__wrapped__"):
        return
    HubertDataset.get_audio = checked(HubertDataset.get_audio, lambda wave: wave)
    FileAudioDataset.__getitem__ = checked(FileAudioDataset.__getitem__, lambda item: item["source"])


def write_whole_checkpoints() -> None:
    """Make fairseq write each checkpoint to a temporary file and rename it, also last and best.

    fairseq copies with ``shutil.copyfile``, so a kill leaves half a ``checkpoint_last.pt``. It also
    retries in the same file after a failed write. Remote files (iopath) are still left to fairseq.
    """
    save, copy = checkpoint_utils.torch_persistent_save, PathManager.copy
    if hasattr(save, "__wrapped__"):
        return

    @functools.wraps(save)
    def save_whole(obj: Any, filename: str, async_write: bool = False) -> None:
        if async_write or not PathManager.supports_rename(filename):
            save(obj, filename, async_write)
            return
        for left in reversed(range(_TRIES)):
            try:
                with replacing(filename) as beside, beside.open("wb") as file:
                    torch.save(obj, file)
                return
            except UserError:
                if not left:
                    raise
                time.sleep(_PAUSE)

    @functools.wraps(copy)
    def copy_whole(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if any(map(PathManager.path_requires_pathmanager, (src_path, dst_path))):
            return copy(src_path, dst_path, overwrite)
        with replacing(dst_path) as beside:
            shutil.copyfile(src_path, beside)
        return dst_path

    checkpoint_utils.torch_persistent_save = save_whole
    PathManager.copy = staticmethod(copy_whole)


def report_unsent_batches() -> None:
    """Make a loader's worker report a batch that it cannot send, so that the program does not hang.

    A batch goes through shared memory. If shared memory is too small, or file sizes are limited
    (``ulimit -f``), the sending thread fails. multiprocessing only prints that, and the program
    waits forever. The fix applies to all torch loaders of the process.
    """
    queue, name = multiprocessing.queues.Queue, "_on_queue_feeder_error"
    original = getattr(queue, name)
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def report(self: Any, error: Exception, item: Any) -> None:
        if get_worker_info() is None or not (isinstance(item, tuple) and len(item) == 2):
            original(error, item)
            return
        reason = " ".join(str(error).split())
        try:
            raise UserError(
                f"the process that read a batch cannot send it: {reason}; enlarge the shared memory or "
                f"the limit of file sizes (ulimit -f), or set dataset.num_workers=0"
            ) from error
        except UserError:
            self.put((item[0], ExceptionWrapper(sys.exc_info())))  # as torch sends errors of a worker

    setattr(queue, name, report)


def audio_file(dataset: Any, index: int) -> str:
    """Return the path of an utterance's audio in a fairseq data set, else its number."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    if hasattr(dataset, "audio_names"):  # HubertDataset
        return os.path.join(dataset.audio_root, dataset.audio_names[index])
    if hasattr(dataset, "fnames"):  # FileAudioDataset
        name = dataset.fnames[index]
        name = name if isinstance(dataset.fnames, list) else name.as_py()
        return os.path.join(dataset.root_dir, dataset.text_compressor.decompress(name))
    return f"number {index} of the data set"


def _fault(wave: Tensor, listed: int) -> str | None:
    """Say what is wrong with scaled audio (samples,), and what to do; None if nothing is wrong."""
    if len(wave) != listed:
        return f"it decodes to {len(wave)} samples, the manifest lists {listed}: replace it or make the manifest again"
    if not bool(torch.isfinite(wave).all()):
        return "it holds NaN or Inf: replace it or remove it from the manifest"
    return None


def _about_the_file(error: Exception) -> bool:
    """Tell whether the audio file caused an error.

    fairseq raises Exception or AssertionError, libsndfile raises RuntimeError.
    """
    exhausted = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    raised = type(error) is Exception or isinstance(error, AssertionError | RuntimeError | OSError)
    return raised and not exhausted


EPSILON = 1e-8  # torch.cosine_similarity's smallest norm


def nce_logits(frames: Tensor, positives: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compare each frame with its own label and all labels: HuBERT (arXiv 2106.07447), equation 3.

    Args:
        frames: projected frames, (S, C).
        positives: embedding of each frame's own label, (S, C).
        labels: embeddings of all labels, (V, C).
        temperature: divides the cosines.

    Returns:
        (S, 1 + V) logits in the type of ``frames``, computed in single precision: the positive,
        then all labels. A label that equals the positive has logit -inf.
    """
    with torch.autocast(frames.device.type, enabled=False):  # half precision would change the loss
        directions = unit_rows(frames.float())
        positive = (directions * unit_rows(positives.float())).sum(-1, keepdim=True)  # (S, 1)
        negative = directions @ unit_rows(labels.float()).T  # (S, V)
    logits = torch.cat([positive, negative], dim=1).type_as(frames) / temperature
    return logits.masked_fill(F.pad(equal_rows(positives, labels), (1, 0)), float("-inf"))


def unit_rows(rows: Tensor) -> Tensor:
    """Divide rows (N, C) by their norms, but at least by EPSILON.

    As in ``torch.cosine_similarity``, the gradient ignores that limit.
    """
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / (norms + (norms.clamp(min=EPSILON) - norms).detach())


def equal_rows(first: Tensor, second: Tensor) -> Tensor:
    """Tell which rows of (S, C) equal which rows of (V, C): (S, V) bool."""
    equal = first[:, None, 0] == second[None, :, 0]
    row, other = equal.nonzero(as_tuple=True)  # compare all columns only for pairs equal in the first
    equal[row, other] = (first[row] == second[other]).all(-1)
    return equal


def speed_up_hubert_pretraining() -> None:
    """Make fairseq's ``HubertModel.compute_nce`` use :func:`nce_logits`.

    With ``model.target_glu`` each frame has its own labels, and fairseq's function is used.
    """
    original = HubertModel.compute_nce
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def compute_nce(self: HubertModel, x: Tensor, pos: Tensor, negs: Tensor) -> Tensor:
        # negs (V, S, C) is a view that repeats one label set. To use the view would be correct, but
        # its gradient would again have V x S x C numbers. Therefore find the label set itself.
        for labels in self.label_embs_concat.split(self.num_classes, 0):
            repeats = negs.stride(1) == 0 and len(negs) == len(labels)
            if repeats and negs.data_ptr() == labels.data_ptr():
                return nce_logits(x, pos, labels, self.logit_temp)
        return original(self, x, pos, negs)

    HubertModel.compute_nce = compute_nce


_FIRST_EPOCH = 1


def keep_order(dataset: FairseqDataset, seed: int) -> None:
    """Give a training set the same order, and so the same batches, after a resume.

    fairseq orders utterances of equal length with a generator seeded by the epoch in which the
    process began, and makes batches from that order once. A run resumed in epoch 6 would therefore
    continue with different batches: with the same lengths, but other utterances.

    Args:
        dataset: its ``ordered_indices`` is wrapped.
        seed: ``common.seed``.
    """
    dataset.ordered_indices = functools.partial(_ordered, dataset.ordered_indices, seed)  # can be pickled


def _ordered(ordered_indices: Callable[[], Any], seed: int) -> Any:
    with data_utils.numpy_seed(seed + _FIRST_EPOCH):
        return ordered_indices()
