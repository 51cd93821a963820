"""The configuration in a checkpoint as plain Python: omegaconf would read the environment at ``${oc.env:...}``."""

import argparse
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fairseq_skd.encoders.unpickling import Node, RefusedError

_MOST_VALUES = 50_000
_DEEPEST = 32
_LONGEST_TEXT = 20_000
_LONGEST_KEY = 200
_MOST_TEXT = 2_000_000  # characters in all: one text can stand in a thousand places
_MOST_HOPS = 8
_PLAIN = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
_MISSING = "???"
_NOTHING = object()


class PlainConfig(NamedTuple):
    """A configuration without interpolations.

    Attributes:
        values: dicts with names as keys, lists, numbers, texts, truth values and None.
        left_out: dotted key -> text, for the interpolations that were not followed.
    """

    values: dict[str, Any]
    left_out: dict[str, str]


def plain_config(config: Any) -> PlainConfig | None:
    """Read what a checkpoint holds as its configuration; None if that is no collection of keys.

    ``${section.key}`` is replaced by the value of that key of the same configuration. A key is left out if its text
    holds ``${`` in another way, or leads to nothing or to a whole section; if it is declared and not set (``???``); or
    if it holds anything but a plain value.

    Args:
        config: dicts, namespaces, lists and nodes, from :class:`~fairseq_skd.encoders.unpickling.Unpickler`.

    Raises:
        RefusedError: it is larger or deeper than any configuration.
    """
    plain = _Reader().read(config, 0)
    if not isinstance(plain, dict):
        return None
    left_out: dict[str, str] = {}
    return PlainConfig(_followed(plain, plain, "", left_out), left_out)


class _Reader:
    """Copies a configuration, and counts: a list of lists that are one list can be read forever."""

    def __init__(self) -> None:
        self._values = self._text = 0

    def read(self, value: Any, depth: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            raise RefusedError(f"its configuration has more than {_MOST_VALUES:,} values or {_DEEPEST} levels")
        if isinstance(value, Node):
            return self.read(value.content, depth + 1)
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            if long := next((key for key in value if type(key) is str and len(key) > _LONGEST_KEY), None):
                raise RefusedError(f"its configuration has a key of {len(long):,} characters")
            read = {key: self.read(part, depth + 1) for key, part in value.items() if type(key) is str}
            return {key: part for key, part in read.items() if part is not _NOTHING}
        if isinstance(value, list | tuple):
            return [part for part in (self.read(part, depth + 1) for part in value) if part is not _NOTHING]
        if type(value) is str:
            self._text += len(value)
            if len(value) > _LONGEST_TEXT or self._text > _MOST_TEXT:
                raise RefusedError(f"its configuration has a text of {len(value):,} characters, {self._text:,} in all")
        return value if value is None or (type(value) in (str, int, float, bool) and value != _MISSING) else _NOTHING


def _followed(value: Any, root: Mapping[str, Any], key: str, left_out: dict[str, str]) -> Any:
    if isinstance(value, dict):
        parts = {
            name: _followed(part, root, f"{key}.{name}" if key else name, left_out) for name, part in value.items()
        }
        return {name: part for name, part in parts.items() if part is not _NOTHING}
    if isinstance(value, list):
        parts_of_list = [_followed(part, root, f"{key}[{index}]", left_out) for index, part in enumerate(value)]
        return [part for part in parts_of_list if part is not _NOTHING]
    if not isinstance(value, str) or "${" not in value:
        return value
    target: Any = value
    for _ in range(_MOST_HOPS):
        plain = _PLAIN.fullmatch(target)
        target = _select(root, plain[1]) if plain else _NOTHING
        if not isinstance(target, str) or "${" not in target:
            break
    if isinstance(target, list) and not any(isinstance(part, list | dict) or "${" in str(part) for part in target):
        return list(target)
    if target is _NOTHING or isinstance(target, list | dict) or "${" in str(target):
        left_out[key] = value
        return _NOTHING
    return target


def _select(root: Mapping[str, Any], key: str) -> Any:
    value: Any = root
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) and name in value else _NOTHING
    return value
