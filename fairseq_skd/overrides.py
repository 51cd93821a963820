"""Settings as ``key=value`` arguments in Hydra's grammar."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
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


def quote_texts(overrides: Sequence[str], texts: Collection[str], several: bool = False) -> list[str]:
    """Quote paths and the like that a user typed for Hydra's grammar, which refuses ``~`` and accents.

    Values that are quoted already, null, and interpolations stay as they are.

    Args:
        overrides: ``key=value``.
        texts: keys that hold texts.
        several: a comma stands between values, each of which is quoted.
    """
    quoted = []
    for override in overrides:
        key, sign, value = override.partition("=")
        plain = sign and key in texts and value not in ("", "null") and value[0] not in "'\"$"
        values = value.split(",") if several else [value]
        escaped = [part.replace("\\'", "'").replace("'", "\\'") for part in values]
        quoted.append(f"{key}=" + ",".join(f"'{part}'" for part in escaped) if plain else override)
    return quoted


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
