"""Overrides of a recipe: read them, check their keys, and merge them, before Hydra does.

Hydra's messages about fairseq's sections are tracebacks or hints that do not help. fairseq is
imported only to check a key or a type that the recipe's YAML does not show: that takes seconds.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.cli import check_word
from fairseq_skd.errors import UserError
from fairseq_skd.typed_settings import MISSING

# Sections that fairseq takes from the YAML. Of all others it knows every key.
_FROM_YAML = ("task", "model", "criterion", "optimizer", "lr_scheduler")


def read_override(word: str) -> Override:
    """Read ``key=value``, ``+key=value`` or ``~key`` by Hydra's grammar.

    Raises:
        UserError: it is neither, or the value cannot be read.
    """
    check_word(word)
    key, _, value = word.partition("=")
    try:
        return OverridesParser.create().parse_override(word)
    except Exception as error:  # Hydra's own, or of its generated parser
        reason = str(error).partition("\n")[0]
        if value.startswith("["):
            advice = f"give a list as '{key}=[1,2]'"
        else:
            advice = f"put a value with such characters in two pairs of quotes, \"{key}='...'\""
        raise UserError(f"{word} cannot be read ({reason}): {advice}") from error


def check_override(override: Override, recipe: Mapping[str, Any]) -> str:
    """Check that the key exists and that its value has the right form.

    Args:
        override: from :func:`read_override`.
        recipe: the YAML as plain Python.

    Returns:
        the override for Hydra's command line: without ``+`` if the key exists already.

    Raises:
        UserError: the key does not exist, its value has the wrong type, or it may not be removed.
    """
    key, word = override.key_or_group, override.input_line
    section, _, name = key.partition(".")
    if "/" in key or section == "hydra":  # Hydra's own
        return word
    keys = recipe.get(section)
    from_yaml = section in _FROM_YAML
    if not name and (from_yaml or isinstance(keys, Mapping)):
        raise UserError(f"{word} would replace the whole section {section}: set its keys, {section}.<key>=...")
    if from_yaml and not isinstance(keys, Mapping):
        return word
    if override.is_delete():
        if from_yaml:
            return word
        raise UserError(f"{word} would remove a key that fairseq needs: give it a value, {key}=...")
    value = override.value()
    here: Mapping[str, Any] = keys if isinstance(keys, Mapping) else {}
    known = name.partition(".")[0] in here
    if from_yaml and not known and not override.is_add():
        raise UserError(_no_key(key, here, f"; +{word} adds a key that the YAML lacks"))
    if override.is_sweep_override() or (isinstance(value, str) and "${" in value):
        return word
    if from_yaml:
        if known and isinstance(here.get(name), list) and not isinstance(value, list | None):
            raise UserError(_not_a_list(word))
        return word.lstrip("+") if known else word
    if not (known and _kind(here.get(name)) == _kind(value)):
        _ask_fairseq(section, name, value, word.lstrip("+"), recipe)
    return word.lstrip("+")


def _kind(value: Any) -> Any:
    """Return what two values have in common if one can stand for the other."""
    if isinstance(value, list):
        return (list, *{_kind(one) for one in value})
    return float if type(value) is int else type(value)


def _ask_fairseq(section: str, name: str, value: Any, word: str, recipe: Mapping[str, Any]) -> None:
    """Check a key of fairseq's own sections.

    Raises:
        UserError: fairseq has no such key, or not with such a value.
    """
    from fairseq.dataclass.configs import FairseqConfig  # here: it takes seconds

    whole = OmegaConf.structured(FairseqConfig())
    sections = [one for one in FairseqConfig.__dataclass_fields__ if not one.startswith("_")]
    schema = {one: whole[one] for one in sections if OmegaConf.is_dict(OmegaConf.select(whole, one))}
    if section not in sections:
        homes = [home for home, keys in {**recipe, **schema}.items() if keys and section in keys]
        meant = f"did you mean {homes[0]}.{section}?" if homes else f"the sections are: {', '.join(sections)}"
        raise UserError(f"there is no key {word.partition('=')[0]}: {meant}")
    if section not in schema:
        return
    first = name.partition(".")[0]
    if first not in schema[section]:
        raise UserError(_no_key(f"{section}.{name}", schema[section]))
    try:
        OmegaConf.merge(schema[section], {name: value})
    except (OmegaConfBaseException, ValueError) as error:
        if OmegaConf.is_list(schema[section][first]) and not isinstance(value, list):
            raise UserError(_not_a_list(word)) from error
        raise UserError(f"{word} cannot be used: {str(error).partition(chr(10))[0]}") from error


def _no_key(key: str, known: Any, more: str = "") -> str:
    section, _, name = key.partition(".")
    nearest = difflib.get_close_matches(name, map(str, known), n=1, cutoff=0.75)
    meant = f"did you mean {section}.{nearest[0]}? " if nearest else ""
    beside = ", ".join(one for one in map(str, known) if one != "_name")
    return f"there is no key {key}: {meant}{section} has {beside}{more}"


def _not_a_list(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{word} cannot be used, it takes a list: give '{key}=[{value}]'"


def merged(recipe: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """Merge checked overrides into a recipe, as Hydra does; Hydra's own settings are left out."""
    config = OmegaConf.create(OmegaConf.to_container(recipe, resolve=False))
    for override in overrides:
        key = override.key_or_group
        if "/" in key or key.partition(".")[0] == "hydra":
            continue
        if override.is_delete():
            above, _, name = key.rpartition(".")
            section = OmegaConf.select(config, above)
            if OmegaConf.is_dict(section):
                section.pop(name, None)
        else:
            OmegaConf.update(config, key, override.value(), merge=True)
    return config


def check_required(config: DictConfig) -> None:
    """Check that data and encoder are given.

    Args:
        config: a recipe with its overrides.

    Raises:
        UserError: ``task.data`` or ``model.w2v_path`` is ``???``, null or empty. A training that
            starts from ``checkpoint.finetune_from_model`` needs no ``model.w2v_path``.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    for key, what in REQUIRED.items():
        if key == "model.w2v_path" and OmegaConf.select(config, "checkpoint.finetune_from_model"):
            continue  # its encoder is taken
        section, _, name = key.partition(".")
        keys = plain.get(section) if isinstance(plain, dict) else None
        if isinstance(keys, dict) and keys.get(name, "another task's") in (MISSING, None, ""):
            raise UserError(f"{key} is not set: give {what}")


REQUIRED = {
    "task.data": "the folder with <split>.tsv and its labels",
    "model.w2v_path": "a pretrained checkpoint or a Hugging Face folder",
}
