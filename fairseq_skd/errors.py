"""Mistakes of the user, told in one sentence; every command of the package ends through :func:`run_command`."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Input that cannot be used. The message is one sentence: what is wrong, where (file, line, key), and the mend."""


def run_command(program: str, main: Callable[[], None]) -> int:
    """Run ``main``; a :class:`UserError` becomes ``program: sentence`` on stderr.

    Returns:
        the exit status: 0, 2 for a mistake in the input or a file that cannot be used, 130 when interrupted.
    """
    try:
        main()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written: the system's words name the file
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0
