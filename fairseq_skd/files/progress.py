"""Progress on stderr for long work: a bar in a terminal, about a line per minute in a log file.

tqdm is imported when there is something to show: short commands do not wait for it.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from threading import Timer
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 2.0  # seconds of work that need no progress
_LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {elapsed} elapsed, {remaining} left, {rate_fmt}\n"
# Options of tqdm that suit stderr: few lines in a log file, and the last one stays. Without
# miniters, tqdm's monitor writes a second line per minute.
STYLE: dict[str, Any] = (
    {"leave": False}
    if sys.stderr is not None and sys.stderr.isatty()
    else {"mininterval": 60.0, "miniters": 1, "bar_format": _LINE}
)


def tracked(items: Iterable[T], title: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield items, with progress if they take more than :data:`PATIENCE` seconds.

    Args:
        items: a collection, or an iterator of ``total`` items.
        title: text before the progress.
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

    Args:
        title: text before the progress.
        unit: name of one item.
        total: number of items.
        options: further options of tqdm.

    Yields:
        a function to call with the number of items done since the last call.
    """
    begun, done, bar = time.time(), 0, None
    quiet = _is_another_rank()

    def step(items: int) -> None:
        nonlocal done, bar
        done += items
        if bar is not None:
            bar.update(items)
        elif not quiet and time.time() - begun >= PATIENCE:
            from tqdm import tqdm

            bar = tqdm(desc=title, unit=unit, total=total, initial=done, **options, **STYLE)

    try:
        yield step
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def working(title: str) -> Iterator[None]:
    """Print the title if the block takes more than :data:`PATIENCE` seconds.

    Args:
        title: what the block does.
    """
    stream = sys.stderr  # the block may redirect it
    timer = Timer(PATIENCE, lambda: print(f"{title} ...", file=stream, flush=True))
    timer.daemon = True
    if not _is_another_rank():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _is_another_rank() -> bool:
    """Whether another worker of a distributed training shows the same progress."""
    distributed = sys.modules.get("torch.distributed")
    return bool(distributed and distributed.is_available() and distributed.is_initialized() and distributed.get_rank())
