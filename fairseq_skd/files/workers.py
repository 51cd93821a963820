"""Running one function over many files, in this process or in several, with a progress bar."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import tracked

T = TypeVar("T")
R = TypeVar("R")

FEW = 1000  # below this many headers, starting processes costs more than it saves
CHEAP = 256  # items handed to a process at once, if each takes a tenth of a millisecond: Ctrl-C waits for them


def default_jobs(items: int) -> int:
    """How many processes to use for ``items`` cheap calls when the user named no number."""
    return 1 if items < FEW else min(available_cpus(), 16)


def available_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_over(
    function: Callable[[T], R], items: Sequence[T], jobs: int, title: str, chunk: int = 1, unit: str = "file"
) -> Iterator[R]:
    """``function(item)`` for each item, in order, each as soon as it is there: the caller can work on it meanwhile.

    Args:
        function: a function at a module's top level (or a ``partial`` of one) when ``jobs`` is above 1.
        items: what it is called with.
        jobs: processes; 1 runs in this one. Threads would be slower than one: libsndfile works in strokes too short to
            be worth handing over Python's lock.
        title: stands before the progress bar.
        chunk: items that are handed to a process at once, at most.
        unit: what an item is, for the progress bar.

    Yields:
        the results.

    Raises:
        UserError: if a worker process dies.
    """
    if jobs == 1 or len(items) < 2:
        for item in tracked(items, title, unit):
            yield function(item)
        return
    # Here, as a small folder, in one process, need not wait for these imports.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Forked processes have everything imported; spawned ones would import it anew. Forking comes before the bar, which
    # starts a thread.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context(method), initializer=_leave_signals)
    try:
        results = pool.map(function, items, chunksize=max(1, min(chunk, len(items) // (4 * jobs))))
        yield from tracked(results, title, unit, len(items))
    except BrokenProcessPool as error:
        reason = "a worker process was ended from outside, as happens when memory runs out"
        raise UserError(f"{reason}; use fewer --jobs") from error
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone answers it, and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for work for ever."""
    from multiprocessing import parent_process

    if parent := parent_process():
        parent.join()
        os._exit(1)
