"""Settings as ``key=value`` arguments in Hydra's grammar."""

import re
from collections.abc import Mapping
from pathlib import Path

# What the grammar takes for a plain value; anything else needs quotes.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


def hydra_overrides(settings: Mapping[str, object]) -> tuple[str, ...]:
    """``key=value`` arguments; a path that holds a space or another character of Hydra's grammar is put in quotes."""
    return tuple(f"{key}={_hydra_value(value)}" for key, value in settings.items())


def _hydra_value(value: object) -> str:
    text = str(value)
    if not isinstance(value, Path) or _PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "\\'") + "'"
