"""Read the baselines from the table in docs/training.md."""

import re
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
_ROW = re.compile(r"^\| `(\w+)`: [^|]+ \| (?:`(\w+)`)? ?\| `([^`|]+)` \|$", re.MULTILINE)


def baselines() -> dict[str, list[str]]:
    """Read the table: name -> overrides of a recipe."""
    found: dict[str, list[str]] = {}
    for name, before, overrides in _ROW.findall(TABLE.read_text(encoding="utf-8")):
        found[name] = [*found.get(before, []), *overrides.split()]
    del found["taught"]  # the shared part of the last three
    return found


BASELINES = baselines()
