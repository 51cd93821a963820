"""Frames of windows equal one pass's, at every length around a cut."""

import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fairseq_skd.encoders.convolutions import FrameGrid, parse_conv_layers
from fairseq_skd.encoders.convolutions import receptive_field as receptive_field_of
from fairseq_skd.errors import UserError
from fairseq_skd.transcription.windows import Cutting, Joiner, Stretch, Window, cut, find_pauses, runs, stretches

RATE = 100
GRID = FrameGrid((5, 3), (2, 2), 1)  # a frame covers 9 samples and steps by 4
SMALL = Cutting(longest=12.0, earliest=6.0, pause=0.8, overlap=1.6, rest=2.0)
LONGEST = 1200  # samples
SEEN = 19  # frames on each side: less than half of the overlap of 40 frames


class Standin:
    """A recognizer whose frames depend on SEEN frames on each side, with zeros beyond the audio.

    Samples are whole numbers, so sums do not depend on their order.
    """

    def __init__(self, grid: FrameGrid = GRID, seen: int = SEEN) -> None:
        self.grid, self.seen, self.batches = grid, seen, []

    def one(self, samples: np.ndarray) -> np.ndarray:
        count = self.grid.frames(len(samples))
        count -= count % self.grid.multiple
        at = np.arange(count)[:, None] * self.grid.step + np.arange(self.grid.width)
        local = (samples[at] * (1 + np.arange(self.grid.width))).sum(axis=1)
        around = np.pad(local, self.seen)
        summed = np.lib.stride_tricks.sliding_window_view(around, 2 * self.seen + 1) @ (
            1 + np.arange(2 * self.seen + 1)
        )
        unit = np.where(summed % 3 == 0, 1 + np.abs(local) % 3, 0)  # mostly blank
        log_probs = np.zeros((count, 4), np.float32)
        log_probs[np.arange(count), unit.astype(int)] = 1 + np.abs(summed) % 1024
        return log_probs

    def __call__(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.batches.append([len(window) for window in windows])
        return [self.one(window) for window in windows]


def loud(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-50, 51, samples).astype(np.float32)


def blocks(audio: np.ndarray, size: int = 170) -> Iterator[np.ndarray]:
    return (audio[first : first + size] for first in range(0, len(audio), size))


def run(audio: np.ndarray, standin: Standin | None = None, cutting: Cutting = SMALL, **options: Any) -> list[Stretch]:
    standin = standin or Standin()
    found = list(stretches([blocks(audio)], standin, standin.grid, RATE, cutting, **options))
    assert all(index == 0 for index, _ in found)
    return [stretch for _, stretch in found]


def check_equal_to_one_pass(audio: np.ndarray, standin: Standin | None = None) -> list[Stretch]:
    standin = standin or Standin()
    expected = standin.one(audio)
    found = run(audio, standin)
    np.testing.assert_array_equal(np.concatenate([stretch.log_probs for stretch in found]), expected)
    assert [stretch.start for stretch in found] == list(
        np.cumsum([0, *(len(stretch.log_probs) for stretch in found[:-1])])
    )
    assert not found[0].continues
    assert max(length for batch in standin.batches for length in batch) <= LONGEST
    return found


AROUND = 25  # samples, six frames


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_frames_equal_one_pass_without_pauses(windows: int) -> None:
    """A window adds 1,040 samples, so these lengths are around each new seam, by single samples."""
    middle = LONGEST + 1040 * (windows - 1)
    for samples in [*range(middle - AROUND, middle + AROUND), *range(middle + 190, middle + 220)]:
        found = check_equal_to_one_pass(loud(samples))
        assert [stretch.continues for stretch in found[1:]] == [True] * (len(found) - 1)


@pytest.mark.parametrize("at", [600, 640, 900, 1150])
def test_frames_equal_one_pass_with_a_pause(at: int) -> None:
    """The pause is longer than what a frame sees, and silent."""
    for first in range(at, at + 9):
        for samples in [*range(LONGEST - 3, LONGEST + 9), first + LONGEST + 160, 2 * LONGEST + first % 4]:
            audio = loud(samples)
            audio[first : first + 180] = 0
            check_equal_to_one_pass(audio)


def test_frames_equal_one_pass_at_random() -> None:
    rng = np.random.default_rng(5)
    kinds = set()
    for seed in range(60):
        audio = loud(int(rng.integers(100, 6000)), seed)
        for _ in range(int(rng.integers(0, 6))):
            first = int(rng.integers(0, len(audio)))
            audio[first : first + int(rng.integers(170, 500))] = 0
        kinds |= {stretch.continues for stretch in check_equal_to_one_pass(audio)[1:]}
    assert kinds == {True, False}


def test_a_grid_that_is_cut_to_a_multiple_and_the_usual_grid() -> None:
    for multiple in (2, 3, 4):
        standin = Standin(GRID._replace(multiple=multiple), seen=16)
        for samples in range(2 * LONGEST + 200, 2 * LONGEST + 220):
            audio = loud(samples)
            audio[800:1000] = 0
            check_equal_to_one_pass(audio, standin)
    usual = FrameGrid((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 1)
    assert (usual.width, usual.step, usual.samples(1), usual.samples(49)) == (400, 320, 400, 15760)
    assert [usual.frames(samples) for samples in (0, 399, 400, 719, 720, 480_000)] == [0, 0, 1, 1, 2, 1499]
    layers = parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")
    assert receptive_field_of(layers) == usual.width
    standin = Standin(usual, 90)
    audio = loud(16000 * 61)
    ((*_, last),) = [list(stretches([blocks(audio, 80000)], standin, usual, 16000))]
    assert last[1].start + len(last[1].log_probs) == usual.frames(len(audio))
    assert standin.batches == [[479760], [479760], [16000 * 61 - 2 * 1299 * 320]]  # 1499 frames, 200 of them shared


@pytest.mark.parametrize("samples", [9, 10, 500, LONGEST])
def test_audio_up_to_the_longest_window_is_one_window(samples: int) -> None:
    audio = loud(samples)
    audio[100:400] = 0
    (window,) = cut(blocks(audio, 7), GRID, RATE, SMALL)
    np.testing.assert_array_equal(window.samples, audio)
    assert (window.start, window.begin, window.end, window.pause) == (0, 0, None, True)
    (stretch,) = run(audio)
    np.testing.assert_array_equal(stretch.log_probs, Standin().one(audio))


# ---- where the cuts are


def test_a_cut_is_in_the_middle_of_the_longest_pause_in_reach() -> None:
    audio = loud(1500)
    audio[200:400] = 0  # before the reach, which is 600 to 1200
    audio[700:780] = 0.2
    audio[900:1000] = 0.2
    audio[1180:1400] = 0.2  # only 20 samples in reach
    windows = list(cut(blocks(audio), GRID, RATE, SMALL))
    assert [(window.start, window.begin, window.end, window.pause) for window in windows] == [
        (0, 0, 237, True),
        (237, 237, None, True),
    ]
    assert GRID.samples(237) == len(windows[0].samples)
    np.testing.assert_array_equal(windows[1].samples, audio[237 * 4 :])
    (first, second) = run(audio)
    assert (first.start, len(first.log_probs), second.start, second.continues) == (0, 237, 237, False)


def test_the_last_window_is_no_scrap() -> None:
    for samples in range(LONGEST + 1, LONGEST + 300, 7):
        for pause in (None, samples - 150):
            audio = loud(samples)
            if pause:
                audio[pause : pause + 100] = 0
            windows = list(cut(blocks(audio), GRID, RATE, SMALL))
            assert len(windows) == 2 and len(windows[1].samples) >= 200
            assert windows[0].pause is False


def speech_like(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise whose height goes up and down four times per second, as syllables do."""
    time = np.arange(int(seconds * 16000)) / 16000
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (level * noise * (0.25 + np.sin(2 * np.pi * 2 * time) ** 2)).astype(np.float32)


@pytest.mark.parametrize("gain", [1.0, 0.01])
@pytest.mark.parametrize("floor", [0.0, 0.0003, 0.003])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_pauses_are_found_at_any_gain_noise_and_offset(gain: float, floor: float, offset: float) -> None:
    audio = speech_like(20)
    for first, stop in ((5.0, 5.16), (8.0, 8.4), (13.0, 14.0)):  # the first one is too short
        audio[int(first * 16000) : int(stop * 16000)] = 0
    audio += floor * np.random.default_rng(1).standard_normal(len(audio)).astype(np.float32) + offset
    assert find_pauses(gain * audio, 320, 10) == [(400, 420), (650, 700)]


def test_no_pause_is_found_where_the_level_is_the_same() -> None:
    rng = np.random.default_rng(0)
    for audio in (
        np.zeros(160000, np.float32),
        0.1 * rng.standard_normal(160000).astype(np.float32),
        speech_like(10),
        np.sin(np.arange(160000) / 10).astype(np.float32),
    ):
        assert find_pauses(audio, 320, 10) == []


def test_runs() -> None:
    starts, ends = runs(np.array([True, False, True, True, False]))
    assert (starts.tolist(), ends.tolist()) == ([0, 2], [1, 4])
    assert [part.tolist() for part in runs(np.zeros(3, bool))] == [[], []]
    assert [part.tolist() for part in runs(np.ones(3, bool))] == [[0], [3]]


# ---- stretches


def one_hot(units: str) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[[int(unit) for unit in units]]


def forced(units: Sequence[str], most: int = 1000) -> list[tuple[int, str, bool]]:
    """Join windows without a pause, of which all frames are used, and show the stretches."""
    joiner, begin, found = Joiner(most), 0, []
    for number, part in enumerate(units):
        last = number == len(units) - 1
        window = Window(np.zeros(0), begin, begin, None if last else begin + len(part), last)
        found += list(joiner.add(window, one_hot(part)))
        begin += len(part)
    return [
        (stretch.start, "".join(map(str, stretch.log_probs.argmax(axis=1))), stretch.continues) for stretch in found
    ]


def test_a_forced_cut_is_in_the_longest_run_of_blanks_in_reach() -> None:
    assert forced(["1000000100110003330", "22"]) == [(0, "10000001001100", False), (14, "033302" + "2", True)]
    assert forced(["1000111122", "22"]) == [(0, "100", False), (3, "011112222", True)]  # none in the second half
    assert forced(["1122", "33"]) == [(0, "112233", False)]  # no blank: waits
    assert forced(["1122", "33", "1"], most=4) == [(0, "11", False), (2, "22", True), (4, "331", True)]
    assert forced(["1111", "11"], most=4) == [(0, "1111", False), (4, "11", True)]


def collapsed(log_probs: np.ndarray) -> list[int]:
    best = log_probs.argmax(axis=1)
    return [int(unit) for unit, before in zip(best, [-1, *best[:-1]], strict=True) if unit and unit != before]


def test_searching_each_stretch_equals_searching_the_whole() -> None:
    for seed in range(30):
        audio = loud(5 * LONGEST, seed)
        found = run(audio)
        assert len(found) >= 4
        whole = collapsed(Standin().one(audio))
        assert [unit for stretch in found for unit in collapsed(stretch.log_probs)] == whole


def test_a_window_may_end_inside_the_stretch_of_a_spike() -> None:
    """A stretch ends in blanks, although windows join anywhere."""
    for left, right in pairwise(run(loud(6 * LONGEST, 3))):
        assert 0 in (left.log_probs[-1].argmax(), right.log_probs[0].argmax())


# ---- several files


def test_files_share_batches_and_a_broken_file_does_not_end_the_others() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from blocks(loud(2 * LONGEST, 1))
        raise UserError("damaged")

    def missing() -> Iterator[np.ndarray]:
        raise UserError("missing")
        yield

    audio = [loud(300, 2), loud(2 * LONGEST, 3), loud(500, 4), loud(500, 5)]
    sources = [missing(), blocks(audio[0]), broken(), blocks(audio[1]), blocks(audio[2]), blocks(audio[3]), missing()]
    for size, seconds in ((1, 60.0), (3, 60.0), (8, 12.0), (8, 1.0)):
        standin = Standin()
        sources = [missing(), blocks(audio[0]), broken(), *map(blocks, audio[1:]), missing()]
        found = list(stretches(sources, standin, GRID, RATE, SMALL, size, seconds))
        assert [index for index, _ in found] == sorted(index for index, _ in found)
        errors = [(index, str(part)) for index, part in found if isinstance(part, UserError)]
        assert errors == [(0, "missing"), (2, "damaged"), (6, "missing")]
        for index, one in zip((1, 3, 4, 5), audio, strict=True):
            frames = np.concatenate([part.log_probs for at, part in found if at == index])
            np.testing.assert_array_equal(frames, Standin().one(one))
        assert max(map(len, standin.batches)) <= size
        assert all(len(batch) == 1 or max(batch) * len(batch) <= seconds * RATE for batch in standin.batches)
    assert max(map(len, standin.batches)) == 1


def test_nothing_is_run_before_it_is_asked_for() -> None:
    standin = Standin()
    parts = stretches([blocks(loud(100 * LONGEST))], standin, GRID, RATE, SMALL)
    assert not standin.batches
    next(parts)
    assert len(standin.batches) <= 2


def test_memory_does_not_grow_with_the_audio() -> None:
    def peak(seconds: int, silence: bool) -> int:
        def audio() -> Iterator[np.ndarray]:
            for number in range(seconds):
                yield np.zeros(100, np.float32) if silence and number % 9 == 0 else loud(100, number)

        one = Standin().one  # the call of a Standin would note each batch
        tracemalloc.start()
        for _ in stretches([audio()], lambda windows: [one(window) for window in windows], GRID, RATE, SMALL):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(20, True)  # what the first call imports and caches does not count
    for silence in (True, False):
        assert peak(300, silence) < 1.1 * peak(100, silence)
