"""What fairseq's tasks load to train on, checked first: bad data get a sentence instead of an assertion deep inside."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.tasks import FairseqTask
from fairseq.tasks.audio_finetuning import AudioFinetuningTask
from fairseq.tasks.hubert_pretraining import HubertPretrainingTask
from omegaconf import OmegaConf

from fairseq_skd.corpora.subset import Subset, check_audio, check_labels, read_manifest
from fairseq_skd.dictionaries import read_dictionary
from fairseq_skd.errors import UserError
from fairseq_skd.models import batches
from fairseq_skd.saved_config import select

_HEADERS = 100  # enough for a folder of another rate; all of a large corpus would take minutes


def check_settings(task: FairseqTask) -> None:
    """Check where a task reads its data from; tasks other than fairseq's two for fine-tuning are left alone.

    Args:
        task: its dictionary has not been asked for yet.

    Raises:
        UserError: the folder of the data or the dictionary is not given or not there, or the task is set to pretrain.
    """
    if not isinstance(task, HubertPretrainingTask | AudioFinetuningTask):
        return
    cfg = task.cfg
    if OmegaConf.is_config(cfg) and OmegaConf.is_missing(cfg, "data"):
        raise UserError("task.data is not set: give the folder of <split>.tsv and its labels")
    if not getattr(cfg, "fine_tuning", True):
        raise UserError("task.fine_tuning=false is for pretraining: set task.fine_tuning=true")
    if not _extensions(cfg):
        raise UserError("task.labels is not set: give the extension of the label files, such as ltr")
    data = Path(cfg.data)
    if not data.is_dir():
        where = "" if data.is_absolute() else f" below {Path.cwd()}, where Hydra runs this: give an absolute path"
        raise UserError(f"task.data={data} is not a folder{where}")
    for extension in _extensions(cfg):
        own = getattr(cfg, "target_dictionary", None)  # audio_finetuning can have it elsewhere
        dictionary = (Path(own) if own else _label_folder(cfg)) / f"dict.{extension}.txt"
        read_dictionary(dictionary)


def check_before_loading(task: FairseqTask, shortest: int, root: Any = None) -> None:
    """Make a task check each split before it loads it, and make the same batches of it after a resume.

    Tasks other than fairseq's two for fine-tuning are left alone.

    Args:
        task: its ``load_dataset`` is wrapped.
        shortest: samples that the encoder needs for one frame.
        root: the whole configuration, or as much of it as there is.
    """
    if not isinstance(task, HubertPretrainingTask | AudioFinetuningTask):
        return
    load = task.load_dataset

    @functools.wraps(load)
    def load_dataset(split: str, *args: Any, **kwargs: Any) -> Any:
        checked = check_split(task, split, shortest)
        training = split == select(root, "dataset.train_subset")
        if checked is not None:
            key = f"dataset.max_tokens{'' if training else '_valid'}"
            _check_batches(task.cfg, *checked, key, select(root, key))
        loaded = load(split, *args, **kwargs)
        if training:
            batches.keep(task.dataset(split), root)
        return loaded

    task.load_dataset = load_dataset


def check_split(task: FairseqTask, split: str, shortest: int) -> tuple[Subset, Sequence[int]] | None:
    """Check manifest, labels and some audio headers of a split, as far as the task takes its utterances.

    Nothing is checked where the task reads other files than ``<split>.tsv``: binarised data, several corpora.

    Returns:
        the split and the places of the utterances that the task takes, or None if nothing was checked.

    Args:
        task: one of fairseq's two for fine-tuning.
        split: the name.
        shortest: samples that the encoder needs for one frame.

    Raises:
        UserError: a file is missing or damaged, see :mod:`fairseq_skd.corpora.subset`; no utterance is as long as
            the task wants them; or one is too short for the encoder.
    """
    cfg = task.cfg
    if getattr(cfg, "binarized_dataset", False) or getattr(cfg, "multi_corpus_keys", None):
        return None
    subset = read_manifest(Path(cfg.data), split, f"split {split} of dataset.train_subset or dataset.valid_subset")
    kept = _kept(cfg, subset)
    _check_lengths(subset, kept, shortest)
    for extension in _extensions(cfg):
        labels = _label_folder(cfg) / f"{split}.{extension}"
        by_bytes = isinstance(task, HubertPretrainingTask)
        check_labels(labels, subset, task.target_dictionary, kept, carriage_returns=not by_bytes)
    spread = kept if len(kept) <= _HEADERS else [kept[place * len(kept) // _HEADERS] for place in range(_HEADERS)]
    check_audio(subset, cfg.sample_rate, shortest, spread)
    return subset, kept


def _kept(cfg: Any, subset: Subset) -> Sequence[int]:
    """Places of the utterances that the task does not drop for their length."""
    bounds = {key: getattr(cfg, key, None) for key in ("min_sample_size", "max_keep_size")}
    least, most = bounds.values()
    kept = [
        index
        for index, count in enumerate(subset.samples)
        if (least is None or count >= least) and (most is None or count <= most)
    ]
    if not kept:
        limits = " and ".join(f"task.{key}={bound}" for key, bound in bounds.items() if bound is not None)
        raise UserError(
            f"{subset.manifest} has no utterance within {limits}: theirs are of {min(subset.samples)} to "
            f"{max(subset.samples)} samples"
        )
    return kept


def _check_lengths(subset: Subset, kept: Sequence[int], shortest: int) -> None:
    """The convolutions fail on a batch that has no longer utterance than these, which may be the last of an epoch."""
    short = [index for index in kept if subset.samples[index] < shortest]
    if short:
        raise UserError(
            f"{len(short)} of {len(kept)} utterances of {subset.manifest} are shorter than {shortest} samples, one "
            f"frame of the model: set task.min_sample_size={shortest}, the first is {subset.where(short[0])}"
        )


def _check_batches(cfg: Any, subset: Subset, kept: Sequence[int], key: str, limit: int | None) -> None:
    """An utterance that is longer than a batch may be is an assertion in fairseq, of validation after an epoch."""
    if limit is None:
        return
    cut = (getattr(cfg, "max_sample_size", None) or math.inf) if getattr(cfg, "pad_audio", True) is False else math.inf
    longest = max(kept, key=lambda index: subset.samples[index])
    if min(subset.samples[longest], cut) > limit:
        raise UserError(
            f"{key}={limit} samples is less than the longest utterance of {subset.manifest} has: "
            f"set it to {subset.samples[longest]} or more, {subset.where(longest)}"
        )


def _extensions(cfg: Any) -> list[str]:
    labels = getattr(cfg, "labels", None)
    return [labels] if isinstance(labels, str) else list(labels or [])


def _label_folder(cfg: Any) -> Path:
    return Path(getattr(cfg, "label_dir", None) or cfg.data)
