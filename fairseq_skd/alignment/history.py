"""The kept checkpoints of a run, in the order of their updates."""

import re
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_skd.encoders.checkpoint import load_checkpoint
from fairseq_skd.errors import UserError

_BY_UPDATE = re.compile(r"checkpoint_\d+_(\d+)\.pt")
_BY_EPOCH = re.compile(r"checkpoint\d+\.pt")


def kept_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Find ``checkpoint_<epoch>_<update>.pt`` and ``checkpoint<epoch>.pt``.

    Returns:
        (updates done, file), by updates; of two files of the same update one.

    Raises:
        UserError: no folder, no such file in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"align.history={folder} is not a folder")
    found: dict[int, Path] = {}
    kept = []
    for path in sorted(folder.iterdir()):
        if _BY_UPDATE.fullmatch(path.name) or _BY_EPOCH.fullmatch(path.name):
            kept.append(path)
    # All of them now: a damaged one would otherwise be met when the ones before it were run, and lose what they gave.
    for path in tqdm(kept, desc="reading checkpoints", unit="checkpoint", delay=1.0):
        state = load_checkpoint(path)
        match = _BY_UPDATE.fullmatch(path.name)
        updates = int(match[1]) if match else _updates(path, state)
        if match or updates not in found:
            found[updates] = path
    if not found:
        raise UserError(
            f"align.history={folder} keeps no checkpoint of an update or epoch: train with "
            f"checkpoint.save_interval_updates=N or checkpoint.no_epoch_checkpoints=false"
        )
    return sorted(found.items())


def _updates(path: Path, state: dict[str, Any]) -> int:
    """An epoch's file does not say its update in its name."""
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    if type(updates) is not int:
        raise UserError(f"{path} does not say after how many updates it was saved")
    return updates
