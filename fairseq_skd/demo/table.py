"""The demo's last word: what each exit costs and how well it does."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fairseq_skd.errors import UserError

_HEADER = ("exit", "layers", "parameters", "WER %", "CER %", "real-time factor")


def read_summary(path: Path) -> dict[str, Any]:
    """What ``fairseq_skd.infer`` wrote.

    Raises:
        UserError: if the file is missing or holds something else.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path} cannot be read: decode again (--fresh starts anew)") from None
    if not isinstance(summary, dict) or "wer" not in summary:
        raise UserError(f"{path} is no summary of fairseq_skd.infer: decode again (--fresh starts anew)")
    return summary


def exits_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """A line an exit, columns aligned; ``summaries`` as read by :func:`read_summary`."""
    rows = [_row(summary) for summary in summaries]
    columns = ("left", *["right"] * (len(_HEADER) - 1))
    return tabulate(rows, _HEADER, tablefmt="plain", disable_numparse=True, colalign=columns)


def _row(summary: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "teacher" if summary["exit_layer"] == summary["layers"] else "student",
        f"{summary['exit_layer']} of {summary['layers']}",
        f"{summary['parameters']:,}",
        f"{summary['wer']:.2f}",
        f"{summary['cer']:.2f}",
        f"{summary['real_time_factor']:.4f}",
    )
