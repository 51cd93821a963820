"""Which splits of a corpus become which of the manifests: ``--splits``."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from fairseq_skd.errors import UserError

T = TypeVar("T")

SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def choose(available: Mapping[str, T], wanted: Sequence[str] | None, default: Sequence[str]) -> dict[str, list[T]]:
    """The parts of a corpus that make each split.

    Args:
        available: the corpus's own splits.
        wanted: each is the name of one, or ``new=old+old``; None stands for ``default``.
        default: names in ``available``.

    Returns:
        for each split to write the values of ``available`` that it is made of, in the order given.

    Raises:
        UserError: if a split is asked for that is not there, or a name is given twice or unfit for a file.
    """
    chosen: dict[str, list[T]] = {}
    for word in default if wanted is None else wanted:
        new, sign, olds = word.partition("=")
        names = olds.split("+") if sign else [new]
        missing = [name for name in names if name not in available]
        if missing:
            there = ", ".join(available)
            raise UserError(f"--splits {word}: there is no split {missing[0]!r}; there are {there}")
        if not SPLIT_NAME.fullmatch(new):
            raise UserError(f"--splits {word}: {new!r} is no file name of letters, digits, '_', '-' and '.'")
        if new in chosen:
            raise UserError(f"--splits {word}: {new} is given twice; write {new}=one+other to merge")
        chosen[new] = [available[name] for name in dict.fromkeys(names)]
    return chosen
