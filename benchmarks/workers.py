"""Processes that take turns: each owns an object and answers calls to its methods."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from fairseq_skd.errors import UserError


class Worker:
    """An object in a process of its own.

    Args:
        name: name for messages.
        build: function that builds the object in that process; must be picklable.
        arguments: arguments of ``build``; must be picklable.
    """

    def __init__(self, name: str, build: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork inherits this process's memory
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, build, arguments), daemon=True)
        self._process.start()
        other.close()

    def call(self, method: str) -> Any:
        """Call a method without arguments, wait, and return its result.

        Raises:
            UserError: the method raised one, or the process was killed.
            RuntimeError: the method raised another error.
        """
        try:
            self._pipe.send(method)
            kind, value = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._process.join()
            raise UserError(
                f"the process of {self.name} ended with exit code {self._process.exitcode}: if memory ran out, lower "
                f"--batch or --seconds"
            ) from error
        if kind == "mistake":
            raise UserError(value)
        if kind == "failure":
            raise RuntimeError(f"in the process of {self.name}:\n{value}")
        return value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


@contextmanager
def workers(build: Callable[..., Any], arguments: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Worker]]:
    """Start one worker per name, one after another, and end all after the block."""
    with ExitStack() as stack:
        started = {}
        for name, values in arguments.items():
            started[name] = Worker(name, build, *values)
            stack.callback(started[name].close)
            started[name].call("ready")
        yield started


def _serve(pipe: Any, build: Callable[..., Any], arguments: Sequence[Any]) -> None:
    owned = None
    while True:
        try:
            method = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            if owned is None:
                owned = build(*arguments)
            answer = ("value", getattr(owned, method)())
        except UserError as error:
            answer = ("mistake", str(error))
        except KeyboardInterrupt:
            return
        except Exception:
            answer = ("failure", traceback.format_exc())
        pipe.send(answer)
