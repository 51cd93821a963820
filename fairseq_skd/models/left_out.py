"""Count the utterances of a split that fairseq leaves out, and warn: an error rate of a part is of that part only."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.data import FairseqDataset, data_utils

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import read_lines
from fairseq_skd.files.subset import Subset
from fairseq_skd.models.config import select

logger = logging.getLogger(__name__)

_LENGTHS = ("min_sample_size", "max_keep_size")


def kept_for_length(cfg: Any, subset: Subset, training: bool) -> Sequence[int]:
    """Indices of the utterances whose length a task accepts; the log has the number of the others.

    Args:
        cfg: the task's configuration.
        subset: the utterances.
        training: whether the split is trained on. If so the number is information, else it is a warning.

    Raises:
        UserError: no utterance has an accepted length.
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
            f"{subset.manifest} has no utterance within {limits}: its utterances have {min(subset.samples)} to "
            f"{max(subset.samples)} samples, change these keys"
        )
    if left := len(subset.samples) - len(kept):
        level, count = logging.INFO if training else logging.WARNING, len(subset.samples)
        logger.log(level, "%d of %d utterances of %s are left out by %s", left, count, subset.manifest, limits)
    return kept


def check_valid_sets(folder: Path, root: Any) -> None:
    """Check that validation reads the manifests ``valid<number>.tsv`` that lie in the folder, or warn of them.

    fairseq refuses to leave them out, and then offers to combine them, which its audio tasks cannot.

    Args:
        folder: ``task.data``.
        root: the whole configuration, or as much of it as there is.

    Raises:
        UserError: ``dataset.valid_subset`` leaves manifests out, and no key says that they are to be left out.
    """
    given = select(root, "dataset.valid_subset")
    if given is None or select(root, "dataset.disable_validation"):
        return
    combine = bool(select(root, "dataset.combine_valid_subsets"))
    read = ["valid"] if combine else given.split(",")
    others = [path for path in sorted(folder.glob("valid*.tsv")) if re.match(r"valid*[0-9]", path.name)]
    others = [path for path in others if path.stem not in read]
    if not others:
        return
    count = sum(len(read_lines(path)) - 1 for path in others)
    left = f"{count} utterances of {', '.join(map(str, others))} are left out of validation"
    instead = f"dataset.valid_subset='{','.join([*read, *(path.stem for path in others)])}'"
    if combine:
        key = "dataset.combine_valid_subsets=true combines nothing for audio"
        logger.warning("%s: %s, set it to false and %s", key, left, instead)
    elif select(root, "dataset.ignore_unused_valid_subsets"):
        logger.warning("dataset.ignore_unused_valid_subsets=true: %s", left)
    else:
        raise UserError(
            f"dataset.valid_subset={given}: {left}, set {instead}, or dataset.ignore_unused_valid_subsets=true"
        )


def check_batches(dataset: FairseqDataset, manifests: str, root: Any, training: bool) -> None:
    """Warn of the utterances that are in no batch.

    fairseq drops a last batch whose size ``dataset.required_batch_size_multiple`` (8 unless set) does not divide, and
    ends a validation after ``dataset.max_valid_steps`` batches.

    Args:
        dataset: what fairseq makes its batches of.
        manifests: the files that list its utterances, for messages.
        root: the whole configuration, or as much of it as there is.
        training: the split is trained on.

    Raises:
        UserError: no batch is left.
    """
    multiple, suffix = select(root, "dataset.required_batch_size_multiple") or 1, "" if training else "_valid"
    steps = None if training else select(root, "dataset.max_valid_steps")
    if multiple == 1 and steps is None:
        return
    dataset.set_epoch(1)  # several corpora are drawn from by epoch
    with data_utils.numpy_seed(0):  # which utterance of one length comes first changes no batch's size
        batches = dataset.batch_by_size(
            dataset.ordered_indices(),
            max_tokens=select(root, f"dataset.max_tokens{suffix}"),
            max_sentences=select(root, f"dataset.batch_size{suffix}"),
            required_batch_size_multiple=multiple,
        )
    count, among = len(dataset), f"of {len(dataset)} utterances of {manifests}"
    if not batches:
        raise UserError(
            f"dataset.required_batch_size_multiple={multiple} makes no batch of the {count} utterances of "
            f"{manifests}: set it to 1"
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
