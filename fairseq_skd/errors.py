"""Mistakes of the user, told in one sentence: the last line of every command, and of ``fairseq-hydra-train``."""

import os
import sys
from collections.abc import Callable
from types import TracebackType


class UserError(ValueError):
    """Input that cannot be used. The message is one sentence: where (file, line, key), what is wrong, what to do."""


def shown(value: object, longest: int = 100) -> str:
    r"""A value from a file as it can stand in a sentence: one line, and not the whole of a long one.

    >>> shown("a\nb")
    'a b'
    """
    return " ".join(str(value).split())[:longest]


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
    if not isinstance(cause, UserError):
        return None
    text = str(cause)
    from_worker = "Traceback (most recent call last)" in text
    return text.rpartition(f"{UserError.__name__}: ")[2].strip() if from_worker else text


def run_command(program: str, main: Callable[[], None]) -> int:
    """Run ``main``; a :class:`UserError` becomes ``program: sentence`` on stderr.

    Returns:
        the exit status: 0, 2 for a mistake in the input or a file that cannot be used, 130 when interrupted.
    """
    try:
        main()
    except UserError as error:
        print(f"{program}: {sentence_of(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written: the system's words name the file
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0


def end_hydra_with_a_sentence() -> None:
    """Make a mistake of the user the last line of the running ``fairseq-hydra-train``, without a traceback.

    Hydra prints every exception itself and exits. With ``HYDRA_FULL_ERROR=1`` it raises the exception again, and
    Python's hook is called. A user who has set that variable keeps the traceback. Processes that a training starts are
    not Hydra's: they report to their parent as before.
    """
    from hydra.core.hydra_config import HydraConfig  # here: the light commands do without

    if not HydraConfig.initialized() or "HYDRA_FULL_ERROR" in os.environ:
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
