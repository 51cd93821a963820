"""A line of results.jsonl that may come from anywhere: whether it is what run_grid.py writes."""

import json
import math
from typing import Any

from experiments.results import KEYS

_TEXTS = ("corpus", "arm", "command", "data_sha256", "encoder_sha256")


def parsed(line: str) -> dict[str, Any] | None:
    """The run of a line; None if what is read of it lacks something or has something else."""
    try:
        result = json.loads(line)
    except ValueError:
        return None
    if not isinstance(result, dict) or not set(KEYS) <= set(result):
        return None
    whole = (
        all(isinstance(result[key], str) for key in _TEXTS)
        and all(type(result[key]) is int for key in ("seed", "updates"))
        and all(isinstance(result[key], list) for key in ("scores", "alignment"))
        and all(map(_is_score, result["scores"]))
        and all(map(_is_alignment, result["alignment"]))
    )
    return result if whole else None


def _is_score(found: Any) -> bool:
    return _is_of_an_exit(found) and all(_is_number(found.get(key)) for key in ("wer", "cer"))


def _is_alignment(found: Any) -> bool:
    if not _is_of_an_exit(found) or not isinstance(found.get("spike_disagreement"), dict):
        return False
    value = found["spike_disagreement"].get("value", math.nan)
    return value is None or _is_number(value)  # none where the teacher has no spike


def _is_of_an_exit(found: Any) -> bool:
    return isinstance(found, dict) and type(found.get("exit")) is int and isinstance(found.get("subset"), str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
