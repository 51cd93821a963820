"""What commands that read a YAML have in common: their arguments and keys, composing, and a quiet terminal."""

import argparse
import logging
import os
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.compat import compose_yaml, to_container
from fairseq_skd.errors import UserError

_FEW = 8  # overrides that a message can hold
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


def shipped_folder(kind: str) -> Path:
    """Find the YAML files that come with the package.

    They lie in the package where it was installed, and beside it in a checkout.

    Args:
        kind: ``finetune``, ``decode``, ``align`` or ``pretrain``.

    Raises:
        UserError: the package was copied without them.
    """
    package = Path(__file__).resolve().parent
    for beside in (package, package.parent):
        if (folder := beside / "config" / kind).is_dir():
            return folder
    raise UserError(f"config/{kind} is neither in {package} nor beside it: copy it along, or give --config-dir DIR")


def add_config_arguments(parser: argparse.ArgumentParser, default: str, others: Sequence[str] = ()) -> None:
    """Add ``--config-dir``, ``--config-name`` and overrides.

    Args:
        parser: the command's parser.
        default: the YAML that is read without ``--config-name``.
        others: further YAML files that come with the package.
    """
    names = f"{', '.join(others)} (default: {default})" if others else f"default: {default}"
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="folder of your own YAML files")
    parser.add_argument("--config-name", "-cn", metavar="NAME", default=default, help=f"name of the YAML: {names}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set, see below")


def yaml_names(folder: Path) -> list[str]:
    """List the names of the YAML files in a folder, without ``.yaml``."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def compose(config_dir: str | os.PathLike[str], config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A Hydra YAML with ``key=value`` overrides applied, without Hydra's working directory and log files.

    Args:
        config_dir: folder of the YAML, relative to the current one or absolute.
        config_name: its name, with or without ``.yaml``.
        overrides: as on a command line.

    Raises:
        UserError: no such folder or file, an unknown key, or a value that does not parse.
    """
    folder = Path(config_dir).expanduser().resolve()
    name = config_name[: -len(".yaml")] if config_name.endswith(".yaml") else config_name
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(yaml_names(folder)) or "no YAML at all"
        raise UserError(f"--config-name {name} is not in {folder} (there: {known})")
    try:
        return compose_yaml(folder, name, overrides)
    except Exception as error:  # hydra raises a dozen kinds, all of them about what the user wrote
        reason = str(error).partition("\n")[0] or type(error).__name__
        if mark := getattr(error, "problem_mark", None):  # not YAML at all: where, which stands in later lines
            reason = f"line {mark.line + 1}: {getattr(error, 'problem', reason)}"
        reason = explain(reason, overrides, lambda: compose(config_dir, config_name))
        given = " ".join(overrides) if len(overrides) <= _FEW else f"{len(overrides)} overrides"
        raise UserError(f"{folder / name}.yaml with {given or 'no overrides'}: {reason}") from error


def compose_values(
    config_dir: str | os.PathLike[str], config_name: str, overrides: Sequence[str], instead: Mapping[str, str]
) -> dict[str, Any]:
    """A YAML with ``key=value`` overrides, as plain Python.

    Args:
        config_dir: folder of the YAML.
        config_name: its name.
        overrides: in Hydra's grammar.
        instead: ``section.key`` that fairseq's decoder has and the command has not, and what to do instead.

    Raises:
        UserError: what :func:`compose` refuses, an interpolation of nothing, a key of ``instead``.
    """

    def refuse(key: str) -> None:
        if key in instead:
            raise UserError(f"{key} is no key of this command: {instead[key]}")

    for override in overrides:
        refuse(override.lstrip("+~").partition("=")[0])
    try:
        values = to_container(compose(config_dir, config_name, overrides))
    except OmegaConfBaseException as error:
        raise UserError(f"{config_name}: {str(error).splitlines()[0]}") from error
    for section, keys in values.items():
        for key in keys if isinstance(keys, Mapping) else ():
            refuse(f"{section}.{key}")
    return values


def quieten_libraries() -> None:
    """Leave the terminal to progress bar, result and mistakes: fairseq's import sets logging to DEBUG."""
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch, of fairseq's weight_norm
    warnings.filterwarnings("ignore", message=r"[\s\S]*hydra\.cc/docs")  # hydra, of fairseq's @package _group_
