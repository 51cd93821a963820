"""A training that goes on from a checkpoint: which one, and what was set otherwise when that was saved.

fairseq goes on with the settings of the command line, and says nothing of those that the checkpoint was trained with.
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
# What makes a training what it is; other sections say where it runs, what it logs and what it keeps.
_SECTIONS = ("optimization", "task", "criterion", "model", "optimizer", "lr_scheduler")
_KEYS = ("common.seed", "dataset.max_tokens", "dataset.batch_size", "dataset.train_subset")
# Where things were read from that the checkpoint holds, or whose hash it holds; and where it runs.
_LEFT_OUT = ("w2v_path", "w2v_args", "teacher_path", "teacher_sha256", "ddp_backend")
_UNKNOWN = object()


def resumed_from(root: DictConfig) -> Path | None:
    """The checkpoint that fairseq is going to go on from, if there is one."""
    folder, file = OmegaConf.select(root, "checkpoint.save_dir"), OmegaConf.select(root, "checkpoint.restore_file")
    if not folder or not file:
        return None
    path = Path(os.path.join(folder, file)) if file == _LATEST else Path(file)
    once = OmegaConf.select(root, "checkpoint.continue_once")
    if file == _LATEST and once and not path.is_file():
        path = Path(once)
    return path if path.is_file() else None


def settings_of(path: Path) -> Mapping[str, Any]:
    """The configuration in a checkpoint, as plain Python; empty in one of fairseq's old style.

    Model and criterion both ask for it; the file, which may hold gigabytes, is read once.

    Raises:
        UserError: it cannot be read.
    """
    return _settings_of_version(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _settings_of_version(path: Path, changed: int) -> Mapping[str, Any]:
    return load_checkpoint(path)["cfg"] or {}


def check_resumed(root: DictConfig) -> None:
    """Read the checkpoint that a training is going to go on from, before time is spent.

    Raises:
        UserError: it cannot be read; the sentence names the newest checkpoint in its folder that can be gone on from.
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
                    f"{error}; the newest intact checkpoint beside it is {other.name} of {updates} updates: go on from "
                    f"that with checkpoint.restore_file={other.absolute()}"
                ) from error
        raise UserError(
            f"{error}; no other checkpoint in {path.parent} can be gone on from: to begin anew, move it away"
        ) from error


def _updates(path: Path) -> int | None:
    """The updates of a checkpoint that a training can go on from; None if it is none."""
    try:
        state = load_checkpoint(path)
        check_finite(state["model"], f"checkpoint {path}")
        if not state["extra_state"]["train_iterator"]:
            return None
        return int(state["optimizer_history"][-1]["num_updates"])
    except (UserError, KeyError, IndexError, TypeError, ValueError):
        return None


def warn_of_other_settings(root: DictConfig | None) -> None:
    """Log which settings differ from those of the checkpoint that the training goes on from.

    Nothing is logged of a training that takes no more than weights from it (``checkpoint.reset_optimizer``).

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
        logger.warning("this training goes on from %s with other settings: %s", path, told)


def other_settings(root: DictConfig, saved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> its value in a checkpoint and now, for those that both have and that differ.

    A key that takes its value from another section's is told once, as that one.

    Args:
        root: the configuration now.
        saved: a checkpoint's, as plain Python.
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
    """What a key has now, as plain Python; unknown if it is absent, missing, or leads nowhere."""
    try:
        part = root[section]
        return to_container(part[name]) if name in part else _UNKNOWN
    except (OmegaConfBaseException, TypeError):
        return _UNKNOWN
