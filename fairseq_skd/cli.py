"""Arguments, overrides and composing for the commands that read a YAML; a quiet terminal."""

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

_FEW = 8  # most overrides that a message lists
# A value that Hydra's grammar reads without quotes.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


def hydra_overrides(settings: Mapping[str, object]) -> tuple[str, ...]:
    """Write ``key=value`` arguments.

    A path with a space or another character of Hydra's grammar is put in quotes. ``~key``, which
    removes a key, is written without a value: Hydra would compare the value.
    """
    return tuple(key if key.startswith("~") else f"{key}={_hydra_value(value)}" for key, value in settings.items())


def _hydra_value(value: object) -> str:
    text = str(value)
    if not isinstance(value, Path) or _PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "\\'") + "'"


def check_word(word: str) -> None:
    """Check that a word of the command line is ``key=value`` or ``~key``.

    Raises:
        UserError: it is neither.
    """
    key, sign, _ = word.partition("=")
    if not (word.startswith("~") or (key and sign)):
        raise UserError(f"{word} cannot be read: give a key and its value with = and no space between, key=value")


def quote_texts(overrides: Sequence[str], texts: Collection[str], several: bool = False) -> list[str]:
    """Quote the values of text keys for Hydra's grammar, which refuses ``~`` and accents.

    Quoted values, null and interpolations stay as they are.

    Args:
        overrides: ``key=value``, as the user typed them.
        texts: keys that hold texts.
        several: split values at commas and quote each part.

    Raises:
        UserError: a word is no override.
    """
    quoted = []
    for override in overrides:
        check_word(override)
        key, sign, value = override.partition("=")
        plain = sign and key in texts and value not in ("", "null") and value[0] not in "'\"$"
        values = value.split(",") if several else [value]
        escaped = [part.replace("\\'", "'").replace("'", "\\'") for part in values]
        quoted.append(f"{key}=" + ",".join(f"'{part}'" for part in escaped) if plain else override)
    return quoted


# Hydra's message about a missing key. The rest of it says how to add the key, which would not help.
_LACKING = re.compile(r"Could not override '([^']+)'")


def explain(reason: str, overrides: Sequence[str], known: Callable[[], DictConfig]) -> str:
    """Explain why Hydra refused overrides: name the override and the keys that exist.

    Args:
        reason: Hydra's message.
        overrides: given to Hydra.
        known: composes the configuration without the overrides.
    """
    if overrides and (lacking := _LACKING.match(reason)):
        return _no_such_key(lacking[1], OmegaConf.to_container(known(), resolve=False))
    for override in overrides:
        try:
            OverridesParser.create().parse_override(override)
        except Exception:  # Hydra's own, or of its generated parser
            return f"{override} cannot be read: {reason}"
    return reason


def _no_such_key(key: str, config: Any) -> str:
    """Name the unknown part of the key and the keys beside it."""
    where = ""
    for part in key.split("."):
        if not isinstance(config.get(part), Mapping):
            break
        config, where = config[part], f"{where}.{part}".lstrip(".")
    return f"there is no key {key}, {where or 'it'} has: {', '.join(map(str, config))}"


def shipped_folder(kind: str) -> Path:
    """Find the YAML files that come with the package.

    An installed package holds them. In a checkout they lie beside the package.

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
    """Compose a Hydra YAML with overrides, without Hydra's working directory and log files.

    Args:
        config_dir: folder of the YAML, relative to the current one or absolute.
        config_name: its name, with or without ``.yaml``.
        overrides: ``key=value``, as on a command line.

    Raises:
        UserError: the folder, the file or a key does not exist, or a value cannot be parsed.
    """
    folder = Path(config_dir).expanduser().resolve()
    name = config_name[: -len(".yaml")] if config_name.endswith(".yaml") else config_name
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(yaml_names(folder)) or "no YAML at all"
        raise UserError(f"--config-name {name} is not in {folder} (there: {known})")
    try:
        return compose_yaml(folder, name, overrides)
    except Exception as error:  # a dozen kinds, all about what the user wrote
        reason = str(error).partition("\n")[0] or type(error).__name__
        if mark := getattr(error, "problem_mark", None):  # not YAML: the line stands further down
            reason = f"line {mark.line + 1}: {getattr(error, 'problem', reason)}"
        reason = explain(reason, overrides, lambda: compose(config_dir, config_name))
        given = " ".join(overrides) if len(overrides) <= _FEW else f"{len(overrides)} overrides"
        raise UserError(f"{folder / name}.yaml with {given or 'no overrides'}: {reason}") from error


def compose_values(
    config_dir: str | os.PathLike[str], config_name: str, overrides: Sequence[str], instead: Mapping[str, str]
) -> dict[str, Any]:
    """Compose a YAML with overrides and convert it to plain Python.

    Args:
        config_dir: folder of the YAML.
        config_name: its name, with or without ``.yaml``.
        overrides: ``key=value``, in Hydra's grammar.
        instead: keys of fairseq's decoder that the command lacks -> what to do instead.

    Raises:
        UserError: :func:`compose` failed, an interpolation names a key that does not exist, or a
            key of ``instead`` is set.
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
    """Keep log lines and warnings of libraries off the terminal."""
    import fairseq  # noqa: F401  (sets logging to DEBUG: a later import would undo the next line)

    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch, of fairseq's weight_norm
    quieten_hydra()


def quieten_hydra() -> None:
    """Ignore Hydra's warnings about ``@package _group_``, as in fairseq's YAML files."""
    warnings.filterwarnings("ignore", message=r"[\s\S]*hydra\.cc/docs")
