"""Tables in Markdown, and numbers as they stand there."""

from collections.abc import Sequence

from tabulate import tabulate

from fairseq_skd.scoring.bootstrap import Interval


def markdown(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """A table of text, its columns aligned."""
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def one_digit(value: float) -> str:
    """Percentage points; what rounds to nothing has no sign."""
    return f"{round(value, 1) + 0.0:.1f}"


def bounds(interval: Interval) -> str:
    """``[-0.3, 1.2]``."""
    return f"[{one_digit(interval.low)}, {one_digit(interval.high)}]"


def with_bounds(interval: Interval) -> str:
    """``0.5 [-0.3, 1.2]``."""
    return f"{one_digit(interval.value)} {bounds(interval)}"
