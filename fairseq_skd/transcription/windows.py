"""Run a recognizer over audio of any length: windows of audio in, stretches of log-probs out.

::

    audio      |====== speech ======|  pause  |========== speech without a pause ==============...
    windows    [--------- 1 ------------)[------------- 2 ------------]
                                                                 [------------ 3 --------------...
    frames of  1111111111111111111111111122222222222222222222222222222233333333333333333333333333...
    stretches  [--------- 1 ------------)[----------- 2 -----------)[------------ 3 ---------...

Audio of up to 30 s is one window. Longer audio is cut in the middle of the longest pause that
begins 15 to 30 s after the last cut. Where there is no pause, two windows overlap by 4 s, and their
frames are joined in the middle of the overlap. Windows begin on the encoder's frame grid, so the
frames are those of one pass.

A stretch is what a search can decode on its own. It ends in a pause or, where there is none, in a
run of blanks. Audio, windows and stretches are never all in memory.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fairseq_skd.encoders.convolutions import FrameGrid
from fairseq_skd.errors import UserError

Floats = npt.NDArray[np.float32]
Run = Callable[[Sequence[Floats]], Sequence[Floats]]
"""Windows, (samples,) each, to log-probs, (T, V) each."""

# A frame belongs to a pause if its level is in the lowest quarter between quiet and loud. These are
# percentiles of the levels around it, and at most 40 dB apart: digital silence is no usual quiet.
_QUIET, _LOUD = 5, 95
_SHARE = 0.25
_LEAST, _MOST = 10.0, 40.0  # dB from quiet to loud; with less there is only speech, or only noise
_SILENCE = 1e-10  # power of what counts as silence, -100 dB


@dataclass(frozen=True)
class Cutting:
    """Where long audio is cut. All values are in seconds.

    Attributes:
        longest: longest window.
        earliest: from a cut to the first place where the next one may be.
        pause: shortest pause.
        overlap: of two windows where there is no pause.
        rest: least audio after a cut, so that the last window is not a scrap.
    """

    longest: float = 30.0
    earliest: float = 15.0
    pause: float = 0.2
    overlap: float = 4.0
    rest: float = 5.0


class Window(NamedTuple):
    """A part of the audio that the encoder sees at once. Frames count from the beginning of a file.

    Attributes:
        samples: (n,) audio.
        start: its first frame.
        begin: the first frame that is used.
        end: one past the last frame that is used; None: all.
        pause: whether it ends in a pause, or with the file.
    """

    samples: Floats
    start: int
    begin: int
    end: int | None
    pause: bool


class Stretch(NamedTuple):
    """Log-probs of a part of a file. The stretches of a file follow each other without a gap.

    Attributes:
        start: its first frame, counted from the beginning of the file.
        log_probs: (T, V), T >= 1.
        continues: whether the stretch before it ended without a pause. The cut is in a run of
            blanks, and can be inside a word.
    """

    start: int
    log_probs: Floats
    continues: bool


def find_pauses(samples: Floats, step: int, shortest: int) -> list[tuple[int, int]]:
    """Find the pauses of a piece of audio by its level.

    Args:
        samples: (n,) some 10 s or more, with speech.
        step: samples per frame.
        shortest: frames of the shortest pause.

    Returns:
        first frame, and one past the last frame, of each pause.

    >>> speech = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    >>> find_pauses(np.concatenate([speech, 0.001 * speech[:6400], speech]), 320, shortest=10)
    [(50, 70)]
    """
    power = samples[: len(samples) // step * step].reshape(-1, step).var(axis=1)
    level = 10 * np.log10(power + _SILENCE)  # (T,) dB
    quiet, loud = np.percentile(level, (_QUIET, _LOUD))
    quiet = max(quiet, loud - _MOST)
    if loud - quiet < _LEAST:
        return []
    starts, ends = runs(level < quiet + _SHARE * (loud - quiet))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True) if end - start >= shortest]


def runs(flags: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the runs of true values: first index, and one past the last index, of each."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return edges[::2], edges[1::2]


def cut(blocks: Iterable[Floats], grid: FrameGrid, sample_rate: int, cutting: Cutting) -> Iterator[Window]:
    """Cut audio into windows.

    Args:
        blocks: (samples,) each.
        grid: of the encoder.
        sample_rate: in Hz.
        cutting: where to cut.
    """

    def frames(seconds: float) -> int:
        """A multiple of what the encoder cuts its frames to."""
        count = round(seconds * sample_rate / grid.step)
        return count - count % grid.multiple

    longest = round(cutting.longest * sample_rate)
    enough = longest + grid.samples(frames(cutting.rest) + grid.multiple)
    margin, blocks = frames(cutting.overlap / 2), iter(blocks)
    held = np.zeros(0, np.float32)  # audio from frame `start` on
    start = begin = 0
    while True:
        while len(held) < enough and (block := next(blocks, None)) is not None:
            held = np.concatenate([held, block])
        if len(held) <= longest:
            yield Window(held, start, begin, None, True)
            return
        latest = min(grid.frames(longest), grid.frames(len(held)) - frames(cutting.rest))
        latest -= latest % grid.multiple
        earliest = begin - start + frames(cutting.earliest)
        reached = [
            (min(stop, latest) - max(first, earliest), (first + stop) // 2)
            for first, stop in find_pauses(held[:enough], grid.step, frames(cutting.pause))
        ]
        length, middle = max(reached, default=(0, 0))
        pause = length >= max(frames(cutting.pause), 1)
        if pause:
            end = min(max(middle, earliest), latest)
            end -= end % grid.multiple
            following = window = end
        else:
            end, following, window = latest - margin, latest - 2 * margin, latest
        yield Window(held[: grid.samples(window)], start, begin, start + end, pause)
        held = held[following * grid.step :]
        start, begin = start + following, start + end


class Joiner:
    """Joins the frames of windows to stretches.

    Args:
        most: frames of a stretch at most, unless its frames have no blank.
        blank: index of the blank.
    """

    def __init__(self, most: int, blank: int = 0) -> None:
        self.most, self.blank = most, blank
        self._parts: list[Floats] = []
        self._continues = False

    def add(self, window: Window, log_probs: Floats) -> Iterator[Stretch]:
        """Yield the stretches that are complete with the next window of a file.

        Args:
            window: the next window; after the last one of a file, the first one of the next file.
            log_probs: (T, V) of the whole window.
        """
        if window.begin == 0:
            self._parts, self._continues = [], False
        end = None if window.end is None else window.end - window.start
        self._parts.append(log_probs[window.begin - window.start : end])
        frames = np.concatenate(self._parts)
        start = window.begin + len(self._parts[-1]) - len(frames)
        done = len(frames) if window.pause else self._place(frames)
        if done:
            yield Stretch(start, frames[:done], self._continues)
            self._continues = not window.pause
        self._parts = [frames[done:].copy()] if done < len(frames) else []

    def _place(self, frames: Floats) -> int:
        """Find the frame to cut before; 0: wait for more frames."""
        best = frames.argmax(axis=1)
        starts, ends = runs(best == self.blank)
        for reach in (len(frames) // 2, 0):
            lengths = ends - np.maximum(starts, reach)
            if len(lengths) and lengths.max() > 0:
                run = int(lengths.argmax())
                return int(ends[run] - lengths[run] // 2)
        if len(frames) < self.most:
            return 0
        changes = np.flatnonzero(np.diff(best)) + 1  # no blank anywhere: at least not inside a spike
        return int(changes[-1]) if len(changes) else len(frames)


def stretches(
    sources: Iterable[Iterable[Floats]],
    run: Run,
    grid: FrameGrid,
    sample_rate: int,
    cutting: Cutting | None = None,
    batch_size: int = 8,
    batch_seconds: float = 30.0,
) -> Iterator[tuple[int, Stretch | UserError]]:
    """Run a recognizer over files of any length, in batches of windows.

    Args:
        sources: blocks of each file, as of :func:`~fairseq_skd.files.stream.read_blocks`.
        run: the recognizer.
        grid: of its encoder.
        sample_rate: in Hz.
        cutting: where to cut; None: the usual.
        batch_size: windows per batch at most.
        batch_seconds: seconds per batch at most, with padding; a longer window is a batch of its
            own. Memory follows from it.

    Yields:
        the index of a file with its next stretch, in order. A file that cannot be read ends with
        the error instead; stretches before the damage are yielded first.
    """
    cutting = cutting or Cutting()
    joiner = Joiner(most=2 * grid.frames(round(cutting.longest * sample_rate)))
    for batch in _batches(_all_windows(sources, grid, sample_rate, cutting), batch_size, batch_seconds * sample_rate):
        windows = [window for _, window in batch if isinstance(window, Window)]
        outputs = iter(run([window.samples for window in windows]) if windows else [])
        _return_free_memory()
        for index, window in batch:
            if isinstance(window, UserError):
                yield index, window
            else:
                for stretch in joiner.add(window, next(outputs)):
                    yield index, stretch


_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only


def _return_free_memory() -> None:
    """Return freed memory to the system.

    torch keeps something small for each new length of a window. glibc cannot give back what was
    freed below it: 300 windows of a base-size encoder grow from 0.8 to 2.0 GB, or to 0.9 GB if it
    is told to look. That takes a few milliseconds.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)


_Item = tuple[int, Window | UserError]


def _all_windows(
    sources: Iterable[Iterable[Floats]], grid: FrameGrid, sample_rate: int, cutting: Cutting
) -> Iterator[_Item]:
    for index, blocks in enumerate(sources):
        try:
            for window in cut(blocks, grid, sample_rate, cutting):
                yield index, window
        except UserError as error:
            yield index, error


def _batches(items: Iterable[_Item], most: int, samples: float) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    longest = count = 0
    for item in items:
        size = 0 if isinstance(item[1], UserError) else len(item[1].samples)
        longest, count = max(longest, size), count + bool(size)
        if batch and (count > most or longest * count > samples):
            yield batch
            batch, longest, count = [], size, int(bool(size))
        batch.append(item)
    if batch:
        yield batch
