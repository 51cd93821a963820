"""Mistakes of the user, told in one sentence: the last line of every command, and of ``fairseq-hydra-train``."""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, NoReturn

PARTIAL = 3  # exit status of a command whose result lacks a part of the input


class UserError(ValueError):
    """Input that cannot be used. The message is one sentence: where (file, line, key), what is wrong, what to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)  # the arguments of a subclass are no sentence

    def __str__(self) -> str:
        return str(self.args[-1])  # fairseq's data set of several corpora puts words of its own before the sentence


def _again(kind: type[UserError], args: tuple[Any, ...], state: dict[str, Any]) -> UserError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class PartialResult(UserError):
    """The result was written, without a part of the input. The message names what was left out."""


def shown(value: object, longest: int = 100) -> str:
    r"""A value from a file as it can stand in a sentence: one line, not the whole of a long one, no terminal commands.

    >>> shown("a\nb")
    'a b'
    >>> print(shown("a\x1b[2J"))
    a\x1b[2J
    """
    line = " ".join(str(value).split())[:longest]
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def sentence_of(error: BaseException) -> str | None:
    """The sentence behind an exception; None if no mistake of the user is behind it.

    A DataLoader worker sends its traceback as the text of the exception. fairseq's trainer hides what happened while a
    checkpoint was loaded behind a plain ``Exception``.

    >>> sentence_of(UserError("train.tsv line 2 is empty: delete it"))
    'train.tsv line 2 is empty: delete it'
    >>> sentence_of(ZeroDivisionError()) is None
    True
    """
    cause: BaseException | None = error
    while type(cause) is Exception:
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, RuntimeError) and str(cause).startswith("DataLoader worker (pid"):
        return (
            "a process that reads audio was ended from outside, as happens when memory or shared memory runs out: "
            "lower dataset.num_workers or dataset.max_tokens"
        )
    if not isinstance(cause, UserError):
        return None
    text = str(cause)
    from_worker = "Traceback (most recent call last)" in text
    return text.rpartition(f"{UserError.__name__}: ")[2].strip() if from_worker else text


def run_command(program: str, main: Callable[[], None]) -> int:
    """Run ``main``; a :class:`UserError` becomes ``program: sentence`` on stderr.

    SIGTERM ends it as Ctrl-C does: what was begun is taken back, and processes that it started are ended.

    Returns:
        the exit status: 0, 2 for a mistake in the input or a file that cannot be used, 3 for a result without a part of
        the input, 130 when interrupted.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
    except PartialResult as error:
        print(f"{program}: {error}", file=sys.stderr)
        return PARTIAL
    except (UserError, RuntimeError) as error:
        if (sentence := sentence_of(error)) is None:
            raise
        print(f"{program}: {sentence}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written: the system's words name the file
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def end_hydra_with_a_sentence() -> None:
    """Make a mistake of the user the last line of the running ``fairseq-hydra-train``, without a traceback.

    Hydra prints every exception itself and exits. With ``HYDRA_FULL_ERROR=1`` it raises the exception again, and
    Python's hook is called. A user who has set that variable keeps the traceback. Processes that a training starts are
    not Hydra's: they report to their parent as before.
    """
    from hydra.core.hydra_config import HydraConfig  # here: the light commands do without

    if not HydraConfig.initialized() or os.environ.get("HYDRA_FULL_ERROR") == "1":
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    traceback_hook = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sentence = sentence_of(error)
        if sentence is None:
            traceback_hook(kind, error, traceback)
        else:
            # One call: the lines of several workers reach one terminal.
            sys.stderr.write(f"fairseq-hydra-train: {sentence}\n")

    sys.excepthook = hook


def require(modules: Iterable[str], extra: str, purpose: str) -> None:
    """Make sure that modules can be imported.

    Args:
        modules: top-level names.
        extra: of ``setup.cfg`` that installs them.
        purpose: what needs them, for the message.

    Raises:
        UserError: one is not installed.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install 'fairseq_skd[{extra}]'")
