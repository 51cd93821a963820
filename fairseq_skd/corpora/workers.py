"""Running one function over many files, in this process or in several, with a progress bar."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from fairseq_skd.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

FEW = 2000  # below this many headers, starting processes costs more than it saves
_MOST_CHUNK = 32  # what Ctrl-C has to wait for, at most, in each process


def default_jobs(items: int) -> int:
    """How many processes to use for ``items`` cheap calls when the user named no number."""
    return 1 if items < FEW else min(available_cpus(), 16)


def available_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_over(function: Callable[[T], R], items: Sequence[T], jobs: int, title: str) -> list[R]:
    """``function(item)`` for each item, in order.

    Args:
        function: a function at a module's top level (or a ``partial`` of one) when ``jobs`` is above 1.
        items: what it is called with.
        jobs: processes; 1 runs in this one. Threads would be slower than one: libsndfile works in strokes too short to
            be worth handing over Python's lock.
        title: stands before the progress bar.

    Raises:
        UserError: if a worker process dies.
    """
    if jobs == 1 or len(items) < 2:
        return [function(item) for item in _bar(items, len(items), title)]
    # Forked processes have everything imported; spawned ones would import it anew. Forking comes before the bar, which
    # starts a thread.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context(method), initializer=_leave_signals)
    try:
        results = pool.map(function, items, chunksize=max(1, min(_MOST_CHUNK, len(items) // (4 * jobs))))
        return list(_bar(results, len(items), title))
    except BrokenProcessPool as error:
        reason = "a worker process was ended from outside, as happens when memory runs out"
        raise UserError(f"{reason}; use fewer --jobs") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _bar(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """``items`` with a progress bar that vanishes when they are done."""
    return tqdm(items, total=total, desc=title, unit="file", mininterval=0.5, leave=False)


def _leave_signals() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone answers it, and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
