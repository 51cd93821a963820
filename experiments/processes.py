"""Commands that are run as processes of their own, from several threads, and that end with the one that runs them."""

import subprocess
import threading
from collections.abc import MutableMapping, Sequence
from typing import Any

from fairseq_skd.files.workers import available_cpus

_PATIENCE = 10.0  # seconds that a command has to end in once it is told to


def share_cores(environment: MutableMapping[str, str], jobs: int) -> None:
    """Give each of ``jobs`` processes at a time its share of the threads, unless OMP_NUM_THREADS says how many."""
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // jobs)))


class Processes:
    """The commands that run now, in whatever thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str] | None:
        """Run a command to its end; ``options`` are those of ``subprocess.Popen``.

        Returns:
            what became of it; None if it was not begun because of :meth:`end`.
        """
        with self._guard:
            if self._ended:
                return None
            process = subprocess.Popen(command, text=True, **options)
            self._running.add(process)
        said, complained = process.communicate()
        with self._guard:
            self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, said, complained)

    def stop(self) -> None:
        """Begin no command any more."""
        with self._guard:
            self._ended = True

    def end(self) -> None:
        """Begin no command any more, and end those that run."""
        self.stop()
        with self._guard:
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
