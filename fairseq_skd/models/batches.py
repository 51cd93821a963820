"""The same batches after a resume.

fairseq draws the order of utterances of one length from a generator that is seeded with the epoch in which the process
began, and makes its batches of that order once. A run that was resumed in epoch 6 therefore goes on with other batches
than it had: of the same lengths, but of other utterances.
"""

import functools
from collections.abc import Callable
from typing import Any

from fairseq.data import FairseqDataset, data_utils

from fairseq_skd.models.config import select

_FIRST_EPOCH = 1


def keep(dataset: FairseqDataset, root: Any) -> None:
    """Order a training set in every process as in one that begins with the first epoch.

    Left alone where fairseq is asked for new batches in each epoch: those follow from the epoch's number.

    Args:
        dataset: its ``ordered_indices`` is wrapped.
        root: the whole configuration, or as much of it as there is.
    """
    seed = select(root, "common.seed")
    anew = ("dataset.update_epoch_batch_itr", "dataset.update_ordered_indices_seed", "task.rebuild_batches")
    if seed is not None and not any(select(root, key) for key in anew):
        dataset.ordered_indices = functools.partial(_ordered, dataset.ordered_indices, seed)


def _ordered(ordered_indices: Callable[[], Any], seed: int) -> Any:
    with data_utils.numpy_seed(seed + _FIRST_EPOCH):
        return ordered_indices()
