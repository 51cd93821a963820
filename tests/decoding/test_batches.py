import os
import signal
from typing import Any

import pytest
import torch
from fairseq_skd.decoding.batches import length_batches, load_batches

from fairseq_skd.errors import UserError, run_command


@pytest.mark.parametrize(
    ("max_tokens", "batch_size", "expected"),
    [
        (100, None, [[3], [1], [4, 0], [2]]),  # 2 x 60 and 3 x 50 exceed 100; 120 goes alone
        (None, 2, [[3, 1], [4, 0], [2]]),
        (120, 2, [[3], [1, 4], [0, 2]]),
        (None, None, [[3, 1, 4, 0, 2]]),
        (1, None, [[3], [1], [4], [0], [2]]),
    ],
)
def test_similar_lengths_share_a_batch(max_tokens: int | None, batch_size: int | None, expected: list) -> None:
    assert length_batches([49, 60, 10, 120, 50], max_tokens, batch_size) == expected


def test_order_among_equals_is_that_of_the_manifest() -> None:
    assert length_batches([5, 5, 5, 5], None, 2) == [[0, 1], [2, 3]]


def test_every_utterance_is_in_one_batch() -> None:
    sizes = [(37 * i) % 101 + 1 for i in range(200)]
    batches = length_batches(sizes, 300, 5)
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(max(sizes[i] for i in batch) * len(batch) <= 300 and len(batch) <= 5 for batch in batches)


class Dataset:
    """Three utterances, of which one cannot be read, or meets a bug, if asked to."""

    def __init__(self, broken: int | None = None, bug: int | None = None) -> None:
        self.broken, self.bug = broken, bug

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.broken:
            raise UserError("audio file 1.wav cannot be used: ...") from RuntimeError("Error in\n decoder")
        if index == self.bug:
            raise TypeError("a bug")
        return {"id": index}

    def collater(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": torch.tensor([item["id"] for item in items])}


@pytest.mark.parametrize("workers", [0, 1])
def test_loading(workers: int) -> None:
    batches = list(load_batches(Dataset(), [[2, 0], [1]], workers, lambda *_: None))
    assert [batch["id"].tolist() for batch in batches] == [[2, 0], [1]]


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_not_blamed_on_the_file(workers: int) -> None:
    with pytest.raises(TypeError, match="a bug"):
        list(load_batches(Dataset(bug=2), [[2, 0], [1]], workers, lambda *_: None))


@pytest.mark.faults
@pytest.mark.parametrize(("batches", "read"), [([[2, 0], [1]], [[2, 0]]), ([[1, 2], [0]], [[2], [0]])])
@pytest.mark.parametrize("workers", [0, 1])
def test_audio_that_breaks_while_it_is_read_is_told_and_left_out(workers: int, batches: list, read: list) -> None:
    """F29."""
    told: dict[int, str] = {}
    found = load_batches(Dataset(broken=1), batches, workers, told.__setitem__)
    assert [batch["id"].tolist() for batch in found] == read
    assert told == {1: "Error in decoder"}


@pytest.mark.faults
def test_a_process_that_reads_and_is_killed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """As the system does where memory runs out; it was a traceback."""

    class Deadly(Dataset):
        def __getitem__(self, index: int) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

    assert run_command("tool", lambda: list(load_batches(Deadly(), [[0]], 1, lambda *_: None))) == 2
    assert capsys.readouterr().err == (
        "tool: a process that reads audio was ended from outside, as happens when memory or shared memory runs out: "
        "lower dataset.num_workers or dataset.max_tokens\n"
    )
