"""The keys of ``config/align``: the section align; task, common, common_eval and dataset are those of infer."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, List, Optional  # noqa: UP035 (omegaconf 2.0)

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.decoding.settings import MISSING, Settings
from fairseq_skd.errors import UserError


def _key(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass
class AlignKeys:
    """What is compared, and what is drawn."""

    layer: Optional[int] = _key(
        None,
        "exit of the student in common_eval.path; 0: the full model; null: its only student, or with a separate "
        "teacher the full model",
    )
    teacher_path: Optional[str] = _key(None, "checkpoint of a separate teacher; null: common_eval.path is both")
    teacher_layer: int = _key(0, "exit of the teacher; 0: the full model")
    history: Optional[str] = _key(
        None, "folder with checkpoint_<epoch>_<update>.pt or checkpoint<epoch>.pt: agreement against updates"
    )
    examples: Optional[List[int]] = _key(  # noqa: UP006
        None, "utterances to draw and to keep for the report, by place in the manifest from 0; null: the first three"
    )
    resamples: int = _key(10_000, "draws of the bootstrap; their seed is common.seed")


@dataclass(frozen=True)
class AlignSettings:
    """The whole configuration: ``decoding`` says what is read and how, ``align`` the rest."""

    decoding: Settings
    align: AlignKeys

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "AlignSettings":
        """Check a composed configuration.

        Raises:
            UserError: an unknown key, a value of the wrong type or out of range, a required one missing.
        """
        keys = read_align_keys(config.get("align") or {})
        rest = {name: values for name, values in config.items() if name != "align"}
        common_eval = dict(rest.get("common_eval") or {})
        if common_eval.get("path") in (None, "", MISSING):
            if keys.history is None:
                raise UserError("common_eval.path is not set: give a fine-tuned checkpoint, or align.history=DIR")
            common_eval["path"] = keys.history  # each of its checkpoints takes this place
        settings = Settings.read({**rest, "common_eval": common_eval})
        if settings.common.seed < 0:
            raise UserError(f"common.seed={settings.common.seed} is out of range, the bootstrap's is 0 or more")
        return cls(settings, keys)


def read_align_keys(values: Any) -> AlignKeys:
    """Check the section ``align``.

    Raises:
        UserError: see :meth:`AlignSettings.read`.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"align={values} replaces a whole section by one value: set its keys, align.<key>=...")
    names = [known.name for known in dataclasses.fields(AlignKeys)]
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in names:
            raise UserError(f"align.{name} is no key of an align config, align has: {', '.join(names)}")
        try:
            node = OmegaConf.merge(OmegaConf.structured(AlignKeys), {name: value})
            checked[name] = OmegaConf.to_container(node)[name]  # type: ignore[index, call-overload]
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"align.{name}={value} cannot be used: {reason}") from error
    keys = AlignKeys(**checked)
    if any(index < 0 for index in keys.examples or ()):
        raise UserError(f"align.examples={keys.examples}: places in the manifest count from 0")
    if keys.resamples < 1:
        raise UserError(f"align.resamples={keys.resamples} is out of range, it is at least 1")
    for name, layer in (("layer", keys.layer), ("teacher_layer", keys.teacher_layer)):
        if layer is not None and layer < 0:
            raise UserError(f"align.{name}={layer} is out of range, it is a layer count, or 0 for the full model")
    return keys


def describe_align_keys() -> str:
    """The keys of ``align`` with their default and meaning, for ``--help``."""
    lines = []
    for known in dataclasses.fields(AlignKeys):
        default = getattr(AlignKeys(), known.name)
        lines.append(f"  align.{known.name} ({'null' if default is None else default})\n      {known.metadata['help']}")
    return "\n".join(lines)
