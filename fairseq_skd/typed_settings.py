"""Typed settings: dataclasses read strictly from a composed YAML, and ranges of numbers.

omegaconf's structured configs are not strict: ``b=2`` silently becomes true, and ``'7'`` becomes 7.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fairseq_skd.errors import UserError


@dataclass(frozen=True)
class Range:
    """An interval of finite numbers.

    Attributes:
        low: lower bound.
        high: upper bound.
        above: whether ``low`` is excluded.
        below: whether ``high`` is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: Any) -> bool:
        """Tell whether ``value`` is a number in the interval."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        parts = []
        if math.isfinite(self.low):
            parts.append(f"{'above' if self.above else 'at least'} {self.low:,}")
        if math.isfinite(self.high):
            parts.append(f"{'below' if self.below else 'at most'} {self.high:,}")
        else:
            parts.append("finite")
        return " and ".join(parts)


PROBABILITY = Range(0, 1)
DROPOUT = Range(0, 1, below=True)  # at 1 nothing would train
NON_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
COUNT = Range(1)
FINITE = Range()


def check_ranges(section: str, values: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Check the numbers of one section, also in lists; missing and null keys are skipped.

    Args:
        section: name of the section, such as ``model``.
        values: key -> value.
        ranges: key -> range.

    Raises:
        UserError: a value is out of range, or a list is empty.
    """
    for key, allowed in ranges.items():
        if key not in values or values[key] is None:
            continue
        value = values[key]
        numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not numbers:
            raise UserError(f"{section}.{key}=[] is empty: give at least one number")
        if not all(allowed.holds(number) for number in numbers):
            raise UserError(f"{section}.{key}={value} is out of range: it has to be {allowed}")


MISSING = "???"  # Hydra's sign for a value that the user must give

_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    types.NoneType: "null",
    list[str]: "a list of texts",
    list[int]: "a list of whole numbers",
}
_Read = TypeVar("_Read", bound="Sections")


def key(default: Any, meaning: str, least: int | None = None, among: Sequence[str] = ()) -> Any:
    """Make a field of a section.

    Args:
        default: :data:`MISSING` if the user must give a value.
        meaning: for ``--help``.
        least: lowest number, also for each number of a list.
        among: valid texts; empty: any text.
    """
    return dataclasses.field(default=default, metadata={"help": meaning, "least": least, "among": among})


class Sections:
    """Base of a command's settings: a dataclass of sections, each a dataclass of :func:`key`."""

    @classmethod
    def read(cls: type[_Read], config: Mapping[str, Any]) -> _Read:
        """Read a composed configuration, and check it.

        Raises:
            UserError: a section or key is unknown, a value has the wrong type or is out of range,
                or a required value is missing.
        """
        classes = typing.get_type_hints(cls)
        for section in config:
            if section not in classes:
                raise UserError(f"there is no section {section}, the sections are: {', '.join(classes)}")
        return cls(**{name: _read_section(name, kind, config.get(name)) for name, kind in classes.items()})

    @classmethod
    def each_key(cls) -> Iterator[tuple[str, Any, Mapping[str, Any], Any]]:
        """Yield each ``section.key`` with its default, metadata and type."""
        for section, section_class in typing.get_type_hints(cls).items():
            kinds = typing.get_type_hints(section_class)
            for field in dataclasses.fields(section_class):
                yield f"{section}.{field.name}", field.default, field.metadata, kinds[field.name]

    @classmethod
    def describe(cls) -> str:
        """Describe all keys with default and meaning, for ``--help``."""
        return "\n".join(
            f"  {name} ({'required' if default == MISSING else as_yaml(default)})\n      {metadata['help']}"
            for name, default, metadata, _ in cls.each_key()
        )

    @classmethod
    def free_texts(cls) -> list[str]:
        """List the keys, as ``section.key``, that hold a path or another free text."""
        return [
            name for name, _, metadata, kind in cls.each_key() if kind in (str, str | None) and not metadata["among"]
        ]


def as_yaml(value: Any) -> str:
    """Spell a value as YAML does."""
    if value is None:
        return "null"
    if value == -math.inf:
        return "-inf"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_section(section: str, section_class: Any, values: Any) -> Any:
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise UserError(
            f"{section}={values} replaces a whole section with one value: set its keys, {section}.<key>=..."
        )
    kinds = typing.get_type_hints(section_class)
    for name in values:
        if name not in kinds:
            raise UserError(f"there is no key {section}.{name}, {section} has: {', '.join(kinds)}")
    found = {}
    for field in dataclasses.fields(section_class):
        name, value = f"{section}.{field.name}", values.get(field.name, field.default)
        if value == MISSING or (value == "" and field.default == MISSING):
            raise UserError(f"{name} is not set ({field.metadata['help']}): give {name}=...")
        found[field.name] = _read_value(name, kinds[field.name], value)
        _check_range(name, found[field.name], **field.metadata)
    return section_class(**found)


def _read_value(name: str, kind: Any, value: Any) -> Any:
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for one in allowed:
        items = typing.get_args(one)
        if type(value) is (typing.get_origin(one) or one) and (not items or all(type(v) in items for v in value)):
            return value
    if float in allowed and type(value) is int:
        return float(value)
    if str in allowed and type(value) is int:  # YAML and Hydra read a name such as 2019 as a number
        return str(value)
    wanted = " or ".join(_KINDS[one] for one in allowed)
    raise UserError(f"{name}={as_yaml(value)} cannot be used, it takes {wanted}")


def _check_range(name: str, value: Any, least: int | None, among: Sequence[str], **_: Any) -> None:
    if value is None:
        return
    if least is not None and any(number < least for number in (value if isinstance(value, list) else [value])):
        raise UserError(f"{name}={value} is out of range, it is at least {least}")
    if among and value not in among:
        raise UserError(f"{name}={value} is unknown: choose one of {', '.join(among)}")
