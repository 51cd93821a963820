"""What a fairseq run logged: losses, alpha and validation WER over updates, from its JSON log."""

import json
import math
import re
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError

_LINE = re.compile(r"\[(train_inner|valid)\]\[INFO\] - (\{.*\})$")
_LARGEST = 1e30  # a loss that diverged is far below it; beyond it no axis can be drawn
Curve = list[tuple[float, float]]


def read_log(path: Path) -> dict[str, Curve]:
    """Curves of a run: name -> (update, value) pairs, by updates; names in validation begin with ``valid_``.

    Of a run that was cut off and went on from an earlier checkpoint, what it did twice counts once, the last time.

    Args:
        path: what fairseq-hydra-train printed or wrote as hydra_train.log with ``common.log_format=json``.

    Raises:
        UserError: no such file, or no JSON log lines in it.
    """
    if not path.is_file():
        raise UserError(f"log {path} does not exist")
    curves: dict[str, Curve] = {}
    reached = -math.inf
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _entry(line)
        updates = _number(entry.get("num_updates", entry.get("valid_num_updates")))
        if updates < reached:  # begun again: what the run before had beyond this is not part of it
            earlier = {name: [point for point in curve if point[0] < updates] for name, curve in curves.items()}
            curves = {name: curve for name, curve in earlier.items() if curve}
        reached = updates if not math.isnan(updates) else reached
        for name, value in entry.items():
            number = _number(value)
            if not math.isnan(updates) and not math.isnan(number):
                curves.setdefault(name, []).append((updates, number))
    if not curves:
        raise UserError(f"log {path} has no JSON lines: train with common.log_format=json")
    return curves


def _entry(line: str) -> dict[str, Any]:
    match = _LINE.search(line)
    try:
        found = json.loads(match[2]) if match else {}
    except ValueError:  # cut off while it was written
        found = {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) < _LARGEST else math.nan
