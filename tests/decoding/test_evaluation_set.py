"""Batches of a subset, and the run, with a fake recognizer whose output is its input."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairseq_skd.decoding import evaluation_set
from fairseq_skd.decoding.config import DatasetSettings
from fairseq_skd.decoding.evaluation_set import Ran
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.subset import Subset
from fairseq_skd.files.waveforms import UnreadableAudioError, length_batches
from fairseq_skd.recognizer import DeviceMemoryError, Output
from fairseq_skd.search.greedy import greedy_units

SYMBOLS, EXIT = 5, 4
SAID = [[0, 3, 3], [0, 0], [1, 1, 0, 1, 2, 2]]  # the longest comes last


@pytest.mark.parametrize(
    ("max_tokens", "batch_size", "expected"),
    [
        (100, None, [[3], [1], [4, 0], [2]]),  # 2 x 60 and 3 x 50 exceed 100; 120 is its own batch
        (None, 2, [[3, 1], [4, 0], [2]]),
        (120, 2, [[3], [1, 4], [0, 2]]),
        (None, None, [[3, 1, 4, 0, 2]]),
        (1, None, [[3], [1], [4], [0], [2]]),
    ],
)
def test_similar_lengths_share_a_batch(max_tokens: int | None, batch_size: int | None, expected: list) -> None:
    assert length_batches([49, 60, 10, 120, 50], max_tokens, batch_size) == expected


def test_utterances_of_equal_length_keep_the_order_of_the_manifest() -> None:
    assert length_batches([5, 5, 5, 5], None, 2) == [[0, 1], [2, 3]]


def test_every_utterance_is_in_one_batch() -> None:
    sizes = [(37 * i) % 101 + 1 for i in range(200)]
    batches = length_batches(sizes, 300, 5)
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(max(sizes[i] for i in batch) * len(batch) <= 300 and len(batch) <= 5 for batch in batches)


class Voices:
    """A reader of ``i.wav`` with ten samples per frame.

    If asked, one file is broken, raises a bug, or kills the process.
    """

    def __init__(self, broken: int | None = None, bug: int | None = None, deadly: int | None = None) -> None:
        self.broken, self.bug, self.deadly = broken, bug, deadly

    def read(self, path: str, listed: bool) -> Tensor:
        place = int(Path(path).stem)
        if place == self.broken:
            raise UnreadableAudioError(path, "Error in decoder")
        if place == self.bug:
            raise TypeError("a bug")
        if place == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(SAID[place], dtype=torch.float).repeat_interleave(10)


class Parrot:
    """A recognizer whose symbol for a frame is the frame's first sample.

    Padded frames output 4, which must not reach the text.
    """

    path = "/c.pt"

    def __init__(self, change: Callable[[Tensor], None] = lambda _: None, **voices: int) -> None:
        self.waveforms, self.change = Voices(**voices), change

    def __call__(self, source: Tensor, padding_mask: Tensor) -> Output:
        frames = source.masked_fill(padding_mask, 4.0)[:, ::10].round().long()  # (B, T)
        logits = torch.nn.functional.one_hot(frames, SYMBOLS).float().transpose(0, 1)  # (T, B, V)
        self.change(logits)
        return Output({EXIT: logits}, (~padding_mask[:, ::10]).sum(dim=1))


def run(parrot: Parrot, workers: int = 0, told: dict[int, str] | None = None, batch_size: int = 2) -> list[Ran]:
    utterances = Subset(Path("/test.tsv"), "/audio", [f"{i}.wav" for i in range(3)], [10 * len(one) for one in SAID])
    settings = DatasetSettings(max_tokens=None, batch_size=batch_size, num_workers=workers)
    unreadable = told.__setitem__ if told is not None else None
    return list(evaluation_set.run(parrot, utterances, settings, unreadable))  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_longest_first_and_padding_is_not_decoded(workers: int) -> None:
    ran = run(Parrot(), workers)
    assert [batch.places for batch in ran] == [[2, 0], [1]]
    assert [batch.output.lengths.tolist() for batch in ran] == [[6, 3], [2]]
    said = [greedy_units(batch.output.logits[EXIT], batch.output.lengths) for batch in ran]
    assert said == [[[1, 1, 2], [3]], [[]]]
    assert [batch.samples for batch in ran] == [10 * (6 + 3), 10 * 2]
    assert all(batch.seconds > 0 for batch in ran)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_not_blamed_on_the_file(workers: int) -> None:
    with pytest.raises(TypeError, match="a bug"):
        run(Parrot(bug=0), workers, {})


@pytest.mark.faults
@pytest.mark.parametrize(("broken", "read"), [(1, [[2, 0]]), (2, [[0], [1]])])
@pytest.mark.parametrize("workers", [0, 1])
def test_audio_that_cannot_be_read_is_reported_and_left_out(workers: int, broken: int, read: list) -> None:
    """F29."""
    told: dict[int, str] = {}
    assert [batch.places for batch in run(Parrot(broken=broken), workers, told)] == read
    assert told == {broken: "Error in decoder"}
    with pytest.raises(UserError, match=rf"^/test\.tsv line {broken + 2}: /audio/{broken}\.wav cannot be read: Error"):
        run(Parrot(broken=broken), workers)


@pytest.mark.faults
def test_a_reading_process_that_is_killed_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """The system kills it if memory runs out; the command ended in a traceback."""
    assert run_command("tool", lambda: run(Parrot(deadly=0), 1) and None) == 2
    assert capsys.readouterr().err == (
        "tool: a process that reads audio was killed, probably because memory or shared memory ran out: "
        "lower dataset.num_workers or dataset.max_tokens\n"
    )


def test_the_utterance_of_an_output_that_is_not_finite_is_named() -> None:
    def break_second(logits: Tensor) -> None:
        logits[0, -1, 2] = float("nan")

    sentence = r"^/c\.pt: the output of exit 4 is not finite for /test\.tsv line 2: /audio/0\.wav: decode in float32"
    with pytest.raises(UserError, match=sentence):
        run(Parrot(break_second))


def test_a_batch_that_does_not_fit_in_memory() -> None:
    def allocate(_: Tensor) -> None:
        raise DeviceMemoryError

    with pytest.raises(UserError, match=r"lower dataset\.max_tokens"):
        run(Parrot(allocate))
