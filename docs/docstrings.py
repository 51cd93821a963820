"""Show docstrings as Markdown in the site (a griffe extension)."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")
_TABLE = re.compile(r"^=+ =+\n(.*?)\n=+ =+$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^(``[^`]+``) +(.*)$", re.MULTILINE)


def as_markdown(text: str) -> str:
    r"""Translate what our docstrings use of reStructuredText.

    >>> print(as_markdown("See :func:`~a.b`.\n\n===== =====\n``x`` one\n===== ====="))
    See `b`.
    <BLANKLINE>
    | | |
    |---|---|
    | ``x`` | one |
    """
    return _TABLE.sub(lambda table: "| | |\n|---|---|\n" + _ROW.sub(r"| \1 | \2 |", table[1]), _ROLE.sub(r"`\1`", text))


class Markdown(griffe.Extension):
    """Translates each docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Once, when the source has been read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
