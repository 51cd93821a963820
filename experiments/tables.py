"""Tables in Markdown, and numbers as they stand there."""

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """A table of text, its columns aligned; needs the extra ``analysis``."""
    from tabulate import tabulate  # here, so that a program can say first that it is missing

    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def one_digit(value: float) -> str:
    """Percentage points; what rounds to nothing has no sign."""
    return f"{round(value, 1) + 0.0:.1f}"
