"""Batches of similar length, longest first; audio that cannot be read is told by file and left out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset

from fairseq_skd.errors import UserError

DEFAULT_MAX_TOKENS = 4_000_000  # fairseq's infer takes as many samples where neither limit is set


@dataclass(frozen=True)
class Unreadable:
    """Stands for an utterance whose audio could not be read; an exception would lose its type in a worker process."""

    index: int
    reason: str


class _Utterances(Dataset):
    """A fairseq data set whose items tell of unusable audio files, see :mod:`fairseq_skd.fairseq_fixes`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            reason = error.__cause__ or error  # without the file's name, which `where` knows
            return Unreadable(index, str(reason) or type(reason).__name__)

    def __len__(self) -> int:
        return len(self.dataset)


def length_batches(sizes: Sequence[int], max_tokens: int | None, batch_size: int | None) -> list[list[int]]:
    """Group utterances of similar length.

    The order is by length, longest first (memory runs out at once or never), and by place among equals: it depends on
    nothing else, so two runs make the same batches.

    Args:
        sizes: samples of each utterance.
        max_tokens: most samples in a batch, padding included; a longer utterance makes a batch of its own.
        batch_size: most utterances in a batch. With both None, :data:`DEFAULT_MAX_TOKENS`.
    """
    if max_tokens is None and batch_size is None:
        max_tokens = DEFAULT_MAX_TOKENS
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        current = batches[-1] if batches else []
        full = batch_size is not None and len(current) >= batch_size
        too_large = max_tokens is not None and current and sizes[current[0]] * (len(current) + 1) > max_tokens
        if not current or full or too_large:
            batches.append([index])
        else:
            current.append(index)
    return batches


def load_batches(
    dataset: Any, batches: Sequence[list[int]], workers: int, unreadable: Callable[[int, str], None]
) -> Iterator[dict[str, Any]]:
    """Read and collate.

    Args:
        dataset: a fairseq data set.
        batches: indices.
        workers: processes that read ahead; 0 reads in this one.
        unreadable: called in this process with the index of an utterance that cannot be read, and the reason. Unless it
            raises, the batch goes on without the utterance.

    Yields:
        fairseq's sample dicts.

    Raises:
        UserError: a batch cannot be handed over by the process that read it.
    """
    collate = partial(_collate, collater=dataset.collater)
    loader: DataLoader = DataLoader(
        _Utterances(dataset), batch_sampler=batches, num_workers=workers, collate_fn=collate
    )
    for sample, left_out in loader:
        for item in left_out:
            unreadable(item.index, " ".join(item.reason.split()))
        if sample is not None:
            yield sample


def _collate(items: list[Any], collater: Callable[[list[Any]], Any]) -> tuple[Any, list[Unreadable]]:
    """The sample, None if nothing of it can be read; and what cannot be read."""
    left_out = [item for item in items if isinstance(item, Unreadable)]
    readable = [item for item in items if not isinstance(item, Unreadable)]
    return collater(readable) if readable else None, left_out
