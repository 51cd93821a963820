"""Progress on stderr for work that takes a while: a bar in a terminal, about a line per minute in a log file.

tqdm is imported when there is something to show: short commands do not wait for it.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 2.0  # seconds of work that need no progress
_TERMINAL = sys.stderr is not None and sys.stderr.isatty()
_EVERY = 1.0 if _TERMINAL else 60.0  # seconds from one look to the next
_LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {elapsed} elapsed, {remaining} left, {rate_fmt}"

# Options of each bar that draws itself: few lines in a log file.
STYLE: dict[str, Any] = {} if _TERMINAL else {"mininterval": _EVERY, "bar_format": f"{_LINE}\n"}

_shows = threading.Lock()  # held while something is shown; what runs inside it shows nothing


def tracked(items: Iterable[T], title: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield items, with progress if they take more than :data:`PATIENCE` seconds.

    Args:
        items: a collection, or an iterator whose length ``total`` is.
        title: stands before the progress.
        unit: name of one item.
        total: number of items; None: ``len(items)``.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(title, unit, total) as step:
        for item in items:
            yield item
            step(1)


@contextmanager
def progress(title: str, unit: str, total: int | None, **options: Any) -> Iterator[Callable[[int], None]]:
    """Show progress of the block if it takes more than :data:`PATIENCE` seconds.

    A thread draws, so the elapsed time goes on while one item takes long.

    Args:
        title: stands before the progress.
        unit: name of one item.
        total: number of items.
        options: of tqdm.

    Yields:
        a function that is called with the number of items done since the last call.
    """
    options["bar_format"] = None if _TERMINAL else _LINE
    with _shown(title, {"unit": unit, "total": total, **options}) as done:

        def step(items: int) -> None:
            done[0] += items

        yield step


@contextmanager
def working(title: str) -> Iterator[None]:
    """Show a title and the elapsed time if the block takes more than :data:`PATIENCE` seconds.

    Args:
        title: what the block does.
    """
    with _shown(title, {"total": None, "bar_format": "{desc}, {elapsed} elapsed"}):
        yield


@contextmanager
def _shown(title: str, options: dict[str, Any]) -> Iterator[list[int]]:
    """Yield a list of one number, the items done so far; ``options`` are those of tqdm."""
    done, over = [0], threading.Event()
    if _is_another_rank() or not _shows.acquire(blocking=False):
        yield done
        return
    # The stream of now: the block may redirect it.
    thread = threading.Thread(target=_draw, args=(title, options, done, over, sys.stderr), daemon=True)
    try:
        thread.start()
        yield done
    finally:
        over.set()
        thread.join()
        _shows.release()


def _draw(title: str, options: dict[str, Any], done: list[int], over: threading.Event, stream: Any) -> None:
    begun = time.time()
    if PATIENCE and over.wait(PATIENCE):
        return
    from tqdm import tqdm

    if _TERMINAL:
        with tqdm(desc=title, file=stream, leave=False, delay=1e-9, **options) as bar:  # the delay: draws nothing yet
            bar.start_t = begun
            while not over.is_set():
                bar.n = done[0]
                bar.refresh()
                over.wait(_EVERY)
        return
    last = False
    while not last:
        last = over.is_set()  # first, so that the last line has the last number
        line = tqdm.format_meter(n=done[0], elapsed=time.time() - begun, prefix=title, **options)
        print(line, file=stream, flush=True)
        over.wait(_EVERY)


def _is_another_rank() -> bool:
    """Whether another worker of a distributed training shows the same progress."""
    distributed = sys.modules.get("torch.distributed")
    return bool(distributed and distributed.is_available() and distributed.is_initialized() and distributed.get_rank())
