"""Run commands as processes, from several threads; they end when this process ends."""

import subprocess
import threading
from collections.abc import MutableMapping, Sequence
from typing import Any

from fairseq_skd.files.workers import available_cpus

_PATIENCE = 10.0  # seconds between asking a command to end and killing it


def share_cores(environment: MutableMapping[str, str], jobs: int) -> None:
    """Share the threads among ``jobs`` processes; OMP_NUM_THREADS set by the user wins."""
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // jobs)))


class Processes:
    """The commands in progress, from all threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str] | None:
        """Run a command to its end.

        Args:
            command: program and arguments.
            options: options of ``subprocess.Popen``.

        Returns:
            the completed process; None if it was not started because of :meth:`end`.
        """
        with self._guard:
            if self._ended:
                return None
            process = subprocess.Popen(command, text=True, **options)
            self._running.add(process)
        output, errors = process.communicate()
        with self._guard:
            self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def stop(self) -> None:
        """Start no more commands."""
        with self._guard:
            self._ended = True

    def end(self) -> None:
        """Start no more commands, and end those in progress."""
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
