"""Report a user's mistake in one sentence, as the last line of a command or training."""

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, NoReturn

PARTIAL = 3  # exit status of a command that left out a part of its input


class UserError(ValueError):
    """Input cannot be used. The message says where (file, line, key), what is wrong, what to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)  # a subclass takes other arguments than its message

    def __str__(self) -> str:
        return str(self.args[-1])  # fairseq's data set of several corpora prepends an argument


def _rebuild(kind: type[UserError], args: tuple[Any, ...], state: dict[str, Any]) -> UserError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class PartialResult(UserError):
    """The result was written, but a part of the input was left out. The message names that part."""


def shown(value: object, longest: int = 100) -> str:
    r"""Make a value from a file safe to print: one line, shortened, without control characters.

    >>> shown("a\nb")
    'a b'
    >>> print(shown("a\x1b[2J"))
    a\x1b[2J
    """
    line = " ".join(str(value).split())[:longest]
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def sentence_of(error: BaseException) -> str | None:
    """Return the message of the user's mistake behind an exception; None for any other cause.

    A DataLoader worker sends its traceback as the text of an exception. fairseq's trainer hides
    errors in loading a checkpoint behind a plain ``Exception``.

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
            "a process that reads audio was killed, probably because memory or shared memory ran out: "
            "lower dataset.num_workers or dataset.max_tokens"
        )
    if not isinstance(cause, UserError):
        return None
    text = str(cause)
    from_worker = "Traceback (most recent call last)" in text
    return text.rpartition(f"{UserError.__name__}: ")[2].strip() if from_worker else text


def run_command(program: str, main: Callable[[], None]) -> int:
    """Run ``main`` and print a :class:`UserError` as ``program: message`` on stderr.

    SIGTERM ends ``main`` like Ctrl-C, so that it can undo what it began and end its processes.

    Returns:
        the exit status: 0; 2 if the input or a file cannot be used; 3 if a part of the input was
        left out; 130 if interrupted; 141 if the reader of standard output has gone.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
        sys.stdout.flush()  # here, where a reader that has gone is no traceback
    except PartialResult as error:
        print(f"{program}: {error}", file=sys.stderr)
        return PARTIAL
    except (UserError, RuntimeError) as error:
        if (sentence := sentence_of(error)) is None:
            raise
        print(f"{program}: {sentence}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, a read-only folder: the system's message names the file
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
    """Make ``fairseq-hydra-train`` end a user's mistake with one sentence instead of a traceback.

    Hydra prints every exception itself and exits. With ``HYDRA_FULL_ERROR=1`` it raises the
    exception again, and Python calls the excepthook. If the user has set that variable, the
    traceback stays. Processes that a training starts report to their parent as before.
    """
    from hydra.core.hydra_config import HydraConfig  # here: light commands do not import hydra

    if not HydraConfig.initialized() or os.environ.get("HYDRA_FULL_ERROR") == "1":
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    traceback_hook = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sentence = sentence_of(error)
        if sentence is None:
            traceback_hook(kind, error, traceback)
        else:
            # One call, because several workers write to one terminal.
            sys.stderr.write(f"fairseq-hydra-train: {sentence}\n")

    sys.excepthook = hook


def require(modules: Iterable[str], extra: str, purpose: str) -> None:
    """Check that modules are installed.

    Args:
        modules: top-level names.
        extra: the extra of ``setup.cfg`` that installs them.
        purpose: what needs them, for the message.

    Raises:
        UserError: a module is not installed.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install 'fairseq_skd[{extra}]'")
