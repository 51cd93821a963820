"""Which utterances of a split fairseq leaves out, told with their number: error rates of a part are of a part."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.data import FairseqDataset, data_utils

from fairseq_skd.corpora.subset import Subset
from fairseq_skd.corpora.text_files import read_lines
from fairseq_skd.errors import UserError
from fairseq_skd.saved_config import select

logger = logging.getLogger(__name__)

_LENGTHS = ("min_sample_size", "max_keep_size")


def kept_for_length(cfg: Any, subset: Subset, training: bool) -> Sequence[int]:
    """Places of the utterances that a task does not drop for their length; others are counted in the log.

    Args:
        cfg: the task's configuration.
        subset: the utterances.
        training: the split is trained on: it is no warning then.

    Raises:
        UserError: none is kept.
    """
    bounds = {key: getattr(cfg, key, None) for key in _LENGTHS}
    least, most = bounds.values()
    kept = [
        index
        for index, count in enumerate(subset.samples)
        if (least is None or count >= least) and (most is None or count <= most)
    ]
    limits = " and ".join(f"task.{key}={bound}" for key, bound in bounds.items() if bound is not None)
    if not kept:
        raise UserError(
            f"{subset.manifest} has no utterance within {limits}: theirs are of {min(subset.samples)} to "
            f"{max(subset.samples)} samples"
        )
    if left := len(subset.samples) - len(kept):
        level, count = logging.INFO if training else logging.WARNING, len(subset.samples)
        logger.log(level, "%d of %d utterances of %s are left out by %s", left, count, subset.manifest, limits)
    return kept


def warn_of_other_valid_sets(folder: Path, split: str) -> None:
    """Warn of manifests that ``dataset.combine_valid_subsets`` is to combine: fairseq's audio tasks read one only.

    Args:
        folder: ``task.data``.
        split: the one that is read.
    """
    others = [path for path in sorted(folder.glob("valid*.tsv")) if re.match(r"valid*[0-9]", path.name)]
    count = sum(len(read_lines(path)) - 1 for path in others if path.stem != split)
    if count:
        names = ",".join([split, *(path.stem for path in others)])
        logger.warning(
            "dataset.combine_valid_subsets=true combines nothing for audio: %d utterances of %s are left out of "
            "validation, set it to false and dataset.valid_subset='%s'",
            count,
            ", ".join(str(path) for path in others),
            names,
        )


def check_batches(dataset: FairseqDataset, subset: Subset, root: Any, training: bool) -> None:
    """Warn of the utterances that are in no batch.

    fairseq drops a last batch whose size ``dataset.required_batch_size_multiple`` (8 unless set) does not divide, and
    ends a validation after ``dataset.max_valid_steps`` batches.

    Args:
        dataset: what fairseq makes its batches of.
        subset: its utterances.
        root: the whole configuration, or as much of it as there is.
        training: the split is trained on.

    Raises:
        UserError: no batch is left.
    """
    multiple, suffix = select(root, "dataset.required_batch_size_multiple") or 1, "" if training else "_valid"
    steps = None if training else select(root, "dataset.max_valid_steps")
    if multiple == 1 and steps is None:
        return
    with data_utils.numpy_seed(0):  # which utterance of one length comes first changes no batch's size
        batches = dataset.batch_by_size(
            dataset.ordered_indices(),
            max_tokens=select(root, f"dataset.max_tokens{suffix}"),
            max_sentences=select(root, f"dataset.batch_size{suffix}"),
            required_batch_size_multiple=multiple,
        )
    count, among = len(dataset), f"of {len(dataset)} utterances of {subset.manifest}"
    if not batches:
        raise UserError(
            f"dataset.required_batch_size_multiple={multiple} makes no batch of the {count} utterances of "
            f"{subset.manifest}: set it to 1"
        )
    if left := count - sum(map(len, batches)):
        logger.warning(
            "dataset.required_batch_size_multiple=%d leaves %d %s out of %s: set it to 1",
            multiple,
            left,
            among,
            "the training" if training else "each validation",
        )
    workers = select(root, "distributed_training.distributed_world_size") or 1
    # fairseq stops after batch number `steps`, counted from 0
    if left := sum(map(len, batches[(steps + 1) * workers :])) if steps is not None else 0:
        logger.warning(
            "dataset.max_valid_steps=%d leaves %d %s out of each validation: set it to null", steps, left, among
        )
