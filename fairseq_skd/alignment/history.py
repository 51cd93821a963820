"""The kept checkpoints of a run, in the order of their updates."""

import re
from pathlib import Path

from tqdm import tqdm

from fairseq_skd.encoders.loading import load_checkpoint
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
    epochs = []
    for path in sorted(folder.iterdir()):
        if match := _BY_UPDATE.fullmatch(path.name):
            found[int(match[1])] = path
        elif _BY_EPOCH.fullmatch(path.name):
            epochs.append(path)
    for path in tqdm(epochs, desc="reading updates", unit="checkpoint", delay=1.0):
        found.setdefault(_updates(path), path)
    if not found:
        raise UserError(
            f"align.history={folder} keeps no checkpoint of an update or epoch: train with "
            f"checkpoint.save_interval_updates=N or checkpoint.no_epoch_checkpoints=false"
        )
    return sorted(found.items())


def _updates(path: Path) -> int:
    """An epoch's file does not say its update in its name."""
    history = load_checkpoint(path).get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    if type(updates) is not int:
        raise UserError(f"{path} does not say after how many updates it was saved")
    return updates
