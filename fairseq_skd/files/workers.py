"""Run one function over many files, in one process or several, with a progress bar."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import tracked

T = TypeVar("T")
R = TypeVar("R")

FEW = 1000  # for fewer headers, starting processes costs more time than it saves
# Items per call of a process if each takes about 0.1 ms. Not more, since Ctrl-C waits for the call.
CHEAP = 256


def default_jobs(items: int) -> int:
    """Choose the number of processes for ``items`` cheap calls."""
    return 1 if items < FEW else min(available_cpus(), 16)


def available_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_over(
    function: Callable[[T], R], items: Sequence[T], jobs: int, title: str, chunk: int = 1, unit: str = "file"
) -> Iterator[R]:
    """Yield ``function(item)`` for each item, in order, each as soon as it is ready.

    Args:
        function: if ``jobs`` is above 1, it must be defined at the top level of a module, or be a
            ``partial`` of one.
        items: arguments, one per call.
        jobs: number of processes; 1 runs in this one. Threads would be slower than one process:
            libsndfile's calls are too short to pay for switching Python's lock.
        title: label of the progress bar.
        chunk: maximum of items that a process gets at once.
        unit: noun for an item, for the progress bar.

    Yields:
        the results.

    Raises:
        UserError: a worker process dies.
    """
    if jobs == 1 or len(items) < 2:
        for item in tracked(items, title, unit):
            yield function(item)
        return
    # Imported here: a small folder needs one process and does not wait for these imports.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Forked processes have everything imported; spawned processes would import it again. Fork
    # before the progress bar starts a thread.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context(method), initializer=_leave_signals)
    try:
        results = pool.map(function, items, chunksize=max(1, min(chunk, len(items) // (4 * jobs))))
        yield from tracked(results, title, unit, len(items))
    except BrokenProcessPool as error:
        reason = "a worker process was killed, as happens when memory runs out"
        raise UserError(f"{reason}; use fewer --jobs") from error
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals() -> None:
    """Let the parent alone handle Ctrl-C, which reaches every process, and end its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for work for ever."""
    from multiprocessing import parent_process

    if parent := parent_process():
        parent.join()
        os._exit(1)
