"""What the commands that read a YAML have in common: its arguments, its values, and a quiet terminal."""

import argparse
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.compat import compose, to_container
from fairseq_skd.errors import UserError


def add_config_arguments(parser: argparse.ArgumentParser, folder: str, name: str) -> None:
    """``--config-dir``, ``--config-name`` and overrides; ``folder`` and ``name`` are the shipped YAML."""
    parser.add_argument("--config-dir", "-cd", required=True, help=f"folder of the YAML, e.g. {folder}")
    parser.add_argument("--config-name", "-cn", default=name, help=f"its name ({name})")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set, see below")


def compose_values(
    config_dir: str, config_name: str, overrides: Sequence[str], instead: Mapping[str, str]
) -> dict[str, Any]:
    """A YAML with ``key=value`` overrides, as plain Python.

    Args:
        config_dir: folder of the YAML.
        config_name: its name.
        overrides: in Hydra's grammar.
        instead: ``section.key`` that fairseq's decoder has and the command has not, and what to do instead.

    Raises:
        UserError: what :func:`~fairseq_skd.compat.compose` refuses, an interpolation of nothing, a key of ``instead``.
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
