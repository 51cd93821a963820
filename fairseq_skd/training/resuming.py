"""Find the checkpoint that a training resumes from, and warn of settings that differ from it.

fairseq takes the settings of the command line, and silently ignores the settings in the checkpoint.
"""

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq.distributed import utils as distributed_utils
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.compat import to_container
from fairseq_skd.encoders.checkpoint import load_checkpoint
from fairseq_skd.encoders.weight_files import check_finite
from fairseq_skd.errors import UserError, shown

logger = logging.getLogger(__name__)

_LATEST = "checkpoint_last.pt"
# Settings that change the result; other sections say where a run computes, logs and saves.
_SECTIONS = ("optimization", "task", "criterion", "model", "optimizer", "lr_scheduler")
_KEYS = ("common.seed", "dataset.max_tokens", "dataset.batch_size", "dataset.train_subset")
# Paths whose content the checkpoint holds or has a hash of; and the device set-up.
_LEFT_OUT = ("w2v_path", "w2v_args", "teacher_path", "teacher_sha256", "ddp_backend")
_UNKNOWN = object()


def resumed_from(root: DictConfig) -> Path | None:
    """Return the checkpoint that fairseq will resume from; None if there is none."""
    folder, file = OmegaConf.select(root, "checkpoint.save_dir"), OmegaConf.select(root, "checkpoint.restore_file")
    if not folder or not file:
        return None
    path = Path(os.path.join(folder, file)) if file == _LATEST else Path(file)
    once = OmegaConf.select(root, "checkpoint.continue_once")
    if file == _LATEST and once and not path.is_file():
        path = Path(once)
    return path if path.is_file() else None


def settings_of(path: Path) -> Mapping[str, Any]:
    """Read the configuration of a checkpoint as plain Python; empty for fairseq's old style.

    Model and criterion both ask for it. The file may hold gigabytes, so it is read once.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    return _settings_of_version(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _settings_of_version(path: Path, changed: int) -> Mapping[str, Any]:
    return load_checkpoint(path)["cfg"] or {}


def check_resumed(root: DictConfig) -> None:
    """Check, before time is spent, that the checkpoint to resume from can be read.

    Raises:
        UserError: it cannot be read; the message names the newest checkpoint beside it that can.
    """
    path = resumed_from(root)
    if path is None:
        return
    try:
        settings_of(path)
    except UserError as error:
        others = sorted(path.parent.glob("*.pt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for other in others:
            if other != path and (updates := _updates(other)) is not None:
                raise UserError(
                    f"{error}; the newest intact checkpoint beside it is {other.name} ({updates} updates): to resume "
                    f"from that, set checkpoint.restore_file={other.absolute()}"
                ) from error
        raise UserError(
            f"{error}; {path.parent} holds no other checkpoint to resume from: to start again, move this one away"
        ) from error


def _updates(path: Path) -> int | None:
    """Count the updates of a checkpoint; None if no training can resume from it."""
    try:
        state = load_checkpoint(path)
        check_finite(state["model"], f"checkpoint {path}")
        if not state["extra_state"]["train_iterator"]:
            return None
        return int(state["optimizer_history"][-1]["num_updates"])
    except (UserError, KeyError, IndexError, TypeError, ValueError):
        return None


def warn_of_other_settings(root: DictConfig | None) -> None:
    """Warn of settings that differ from the resumed checkpoint's.

    A training that takes only weights from it (``checkpoint.reset_optimizer``) gets no warning.

    Args:
        root: the whole configuration, or None.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    path = resumed_from(root) if root is not None else None
    if root is None or path is None or OmegaConf.select(root, "checkpoint.reset_optimizer"):
        return
    distributed = OmegaConf.select(root, "distributed_training")
    if distributed is not None and not distributed_utils.is_master(distributed):
        return
    changes = other_settings(root, settings_of(path))
    if changes:
        told = ", ".join(f"{key}={now} (it had {shown(before)})" for key, (before, now) in changes.items())
        logger.warning("this training resumes from %s with other settings: %s", path, told)


def other_settings(root: DictConfig, saved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Map each key that differs to its value in the checkpoint and its value now.

    Keys that only one of the two has are left out. A key that copies another section's key is
    listed once, under that section.

    Args:
        root: the configuration now.
        saved: the configuration in the checkpoint, as plain Python.
    """
    sections = {name: section for name, section in saved.items() if isinstance(section, Mapping)}
    keys = [*_KEYS, *(f"{section}.{name}" for section in _SECTIONS for name in sections.get(section, {}))]
    changes: dict[str, tuple[Any, Any]] = {}
    told = []
    for key in keys:
        section, _, name = key.partition(".")
        before, now = sections.get(section, {}).get(name, _UNKNOWN), _value(root, section, name)
        change = name, before, now
        if name not in _LEFT_OUT and _UNKNOWN not in (before, now) and before != now and change not in told:
            told.append(change)
            changes[key] = before, now
    return changes


def _value(root: DictConfig, section: str, name: str) -> Any:
    """Return a key's value now, as plain Python; unknown if it is absent or cannot be resolved."""
    try:
        part = root[section]
        return to_container(part[name]) if name in part else _UNKNOWN
    except (OmegaConfBaseException, TypeError):
        return _UNKNOWN
