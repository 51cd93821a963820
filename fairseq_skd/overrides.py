"""Settings as ``key=value`` arguments in Hydra's grammar."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

# What the grammar takes for a plain value; anything else needs quotes.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


def hydra_overrides(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Write ``key=value`` arguments.

    A path that holds a space or another character of Hydra's grammar is put in quotes. Of ``~key``, which takes a key
    out, the value is left out: Hydra would compare it.
    """
    return tuple(key if key.startswith("~") else f"{key}={_hydra_value(value)}" for key, value in settings.items())


def _hydra_value(value: object) -> str:
    text = str(value)
    if not isinstance(value, Path) or _PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "\\'") + "'"


# What hydra says of a key that a configuration lacks; what follows tells how to add it, which would not help.
_LACKING = re.compile(r"Could not override '([^']+)'")


def explain(reason: str, overrides: Sequence[str], known: Callable[[], DictConfig]) -> str:
    """Why hydra refused overrides: which of them, and what there is instead.

    Args:
        reason: what it said.
        overrides: what it was given.
        known: composes the configuration without them.
    """
    if overrides and (lacking := _LACKING.match(reason)):
        return _no_such_key(lacking[1], OmegaConf.to_container(known(), resolve=False))
    for override in overrides:
        try:
            OverridesParser.create().parse_override(override)
        except Exception:  # of the parser that it generated, or its own
            return f"{override} cannot be read: {reason}"
    return reason


def _no_such_key(key: str, config: Any) -> str:
    """Names the part of the key that is unknown, and the keys beside it."""
    where = ""
    for part in key.split("."):
        if not isinstance(config.get(part), Mapping):
            break
        config, where = config[part], f"{where}.{part}".lstrip(".")
    return f"there is no key {key}, {where or 'it'} has: {', '.join(map(str, config))}"
