"""What fairseq's tasks load to train on, checked first: bad data get a sentence instead of an assertion deep inside."""

import functools
from pathlib import Path
from typing import Any

from fairseq.tasks import FairseqTask

from fairseq_skd.decoding.subset import Subset, check_audio, check_labels, read_manifest
from fairseq_skd.errors import UserError

_KEY = "dataset.train_subset or dataset.valid_subset"
_HEADERS = 100  # enough for a folder of another rate; all of a large corpus would take minutes


def check_before_loading(task: FairseqTask, shortest: int) -> None:
    """Make a task check each split before it loads it.

    Args:
        task: fairseq's, for fine-tuning; its dictionary has not been asked for yet.
        shortest: samples that the feature extractor needs for one frame.

    Raises:
        UserError: the folder of the data or the dictionary is not there.
    """
    if not Path(task.cfg.data).is_dir():
        raise UserError(f"task.data={task.cfg.data} is not a folder")
    for extension in _extensions(task.cfg):
        dictionary = _label_folder(task.cfg) / f"dict.{extension}.txt"
        if not dictionary.is_file():
            raise UserError(
                f"dictionary {dictionary} does not exist: put it beside the labels (fairseq_skd.manifest makes one)"
            )
    load = task.load_dataset

    @functools.wraps(load)
    def load_dataset(split: str, *args: Any, **kwargs: Any) -> Any:
        check_split(task, split, shortest)
        return load(split, *args, **kwargs)

    task.load_dataset = load_dataset


def check_split(task: FairseqTask, split: str, shortest: int) -> None:
    """Check manifest, labels and some audio headers of a split.

    Nothing is checked where the task reads other files than ``<split>.tsv``: binarised data, several corpora.

    Args:
        task: fairseq's, for fine-tuning.
        split: the name.
        shortest: samples that the feature extractor needs for one frame.

    Raises:
        UserError: a file is missing or damaged, see :mod:`fairseq_skd.decoding.subset`; or no utterance is as long as
            the task wants them.
    """
    cfg = task.cfg
    if getattr(cfg, "binarized_dataset", False) or getattr(cfg, "multi_corpus_keys", None):
        return
    subset = read_manifest(Path(cfg.data), split, _KEY)
    _check_lengths(cfg, subset)
    for extension in _extensions(cfg):
        check_labels(_label_folder(cfg) / f"{split}.{extension}", subset, task.target_dictionary)
    check_audio(subset, cfg.sample_rate, shortest, _HEADERS)


def _check_lengths(cfg: Any, subset: Subset) -> None:
    least, most = getattr(cfg, "min_sample_size", None), getattr(cfg, "max_keep_size", None)
    if not any((least is None or count >= least) and (most is None or count <= most) for count in subset.samples):
        raise UserError(
            f"{subset.manifest} has no utterance between task.min_sample_size={least} and task.max_keep_size={most} "
            f"samples: theirs are {min(subset.samples)} to {max(subset.samples)}"
        )


def _extensions(cfg: Any) -> list[str]:
    return [cfg.labels] if isinstance(cfg.labels, str) else list(cfg.labels or [])


def _label_folder(cfg: Any) -> Path:
    return Path(getattr(cfg, "label_dir", None) or cfg.data)
