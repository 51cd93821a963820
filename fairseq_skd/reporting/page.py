"""From what was found to the page: tables of text, figures as SVG, players, and the template that holds them."""

import base64
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import fairseq_skd
from fairseq_skd.alignment.figures import draw_history, draw_offsets, shown
from fairseq_skd.errors import UserError
from fairseq_skd.reporting import player
from fairseq_skd.reporting.curves import draw_curves
from fairseq_skd.reporting.folders import Aligned, Decoded, Runs
from fairseq_skd.reporting.vector import inline_svg

_HERE = Path(__file__).parent
_MOST_SYMBOLS = 40
DECODED = ("decoded", "subset", "exit", "layers", "parameters", "WER %", "95 % interval", "CER %", "sentences")
ALIGNED = (
    *("compared", "subset", "teacher", "student"),
    *("frame disagreement %", "95 % interval", "spike disagreement %", "95 % interval", "spike miss %"),
    *("offset ms", "blank %, teacher / student"),
)
Record = TypeVar("Record", Decoded, Aligned)
Made = TypeVar("Made")


class Table(NamedTuple):
    """Cells as text; the first ``words`` columns are words, the others numbers."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int


class Analysis(NamedTuple):
    """One section about an ``align.json``."""

    name: str
    lines: list[str]
    figures: list[Markup]
    symbols: Table
    players: list[player.Player]


class Section(NamedTuple):
    """What an ``align.json`` adds to the page: a row of a table, and a section of its own."""

    row: tuple[str, ...]
    analysis: Analysis


def render(runs: Runs, title: str) -> str:
    """The whole page. What is damaged is left out, and named on the page and on stderr.

    Raises:
        UserError: all of it is damaged.
    """
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    damaged: list[Path] = []
    rows = _sound(runs.decoded, decoded_row, "infer", damaged)
    sections = _sound(runs.aligned, lambda aligned: Section(aligned_row(aligned), analysis(aligned)), "align", damaged)
    if not (rows or sections or runs.trained):
        raise UserError(f"nothing can be shown, all files are damaged: {', '.join(map(str, damaged))}")
    tables = [
        Table("Error rates", DECODED, rows, 3),
        Table("Alignment of teacher and student", ALIGNED, [section.row for section in sections], 4),
    ]
    return environment.get_template("report.html.j2").render(
        title=title,
        version=fairseq_skd.__version__,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # the one script that may run, whatever got into the page's text
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        tables=[table for table in tables if table.rows],
        curves=[
            (run.name, inline_svg(draw_curves({run.name: run.curves}), f"learning curves of {run.name}"))
            for run in runs.trained
        ],
        analyses=[section.analysis for section in sections],
        damaged=[str(file) for file in damaged],
        geometry=player,
    )


def decoded_row(one: Decoded) -> tuple[str, ...]:
    """A summary of ``fairseq_skd.infer`` under :data:`DECODED`."""
    found = one.summary
    return (
        one.name,
        Path(found["manifest"]).stem,
        "full" if found["exit_layer"] == found["layers"] else "student",
        f"{found['exit_layer']} of {found['layers']}",
        f"{found['parameters']:,}",
        f"{found['wer']:.2f}",
        f"{one.interval.low:.2f} to {one.interval.high:.2f}{_speakers(one.resampled)}" if one.interval else "-",
        f"{found['cer']:.2f}",
        f"{found.get('sentences', 0):,}{_left_out(found)}",
    )


def aligned_row(one: Aligned) -> tuple[str, ...]:
    """An ``align.json`` under :data:`ALIGNED`."""
    found = one.found
    blanks = (_percent(found[who]["blank_share"]) for who in ("teacher", "student"))
    return (
        one.name,
        str(found.get("subset", "-")),
        *(f"{found[who]['exit_layer']} of {found[who]['layers']}" for who in ("teacher", "student")),
        *_rate(found["frame_disagreement"], found["interval"]),
        *_rate(found["spike_disagreement"], found["interval"]),
        _percent(found["spike_miss"]["value"]),
        "-" if found["offset"]["mean_ms"] is None else f"{found['offset']['mean_ms']:.1f}",
        " / ".join(blanks),
    )


def analysis(aligned: Aligned) -> Analysis:
    """Figures, symbols and examples of an ``align.json``."""
    found = aligned.found
    names = {
        who: f"{who}, {found[who]['exit_layer']} of {found[who]['layers']} layers" for who in ("teacher", "student")
    }
    figures = []
    if found["offset"]["matched"]:
        figures.append(inline_svg(draw_offsets(found["offset"], found["frame_ms"]), "histogram of spike offsets"))
    if found.get("history"):
        figures.append(inline_svg(draw_history(found["history"]), "agreement against training updates"))
    rows = [
        (shown(str(row["symbol"])), *(f"{row[key]:,}" for key in ("teacher_spikes", "lost", "missed")))
        for row in found["by_symbol"][:_MOST_SYMBOLS]
    ]
    return Analysis(
        name=aligned.name,
        lines=[f"{names[who]}: {found[who]['checkpoint']}" for who in ("teacher", "student")],
        figures=figures,
        symbols=Table("Teacher's spikes by symbol", ("symbol", "spikes", "lost", "missed"), rows, 1),
        players=[
            player.make_player(aligned.file.parent, example, found["frame_ms"], names) for example in found["examples"]
        ],
    )


def _sound(records: Sequence[Record], make: Callable[[Record], Made], tool: str, damaged: list[Path]) -> list[Made]:
    """What is made of each record; a damaged one, whatever its values are, is left out and put on the list."""
    made = []
    for record in records:
        try:
            made.append(make(record))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            told = str(error) if isinstance(error, UserError) else "a value in it is missing or of the wrong kind"
            print(f"left out: {record.file}: {told}; run fairseq_skd.{tool} again", file=sys.stderr)
            damaged.append(record.file)
    return made


def _rate(rate: dict[str, float | None], drawn: dict[str, Any]) -> tuple[str, str]:
    low, high = rate["low"], rate["high"]
    between = "-" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}{_speakers(drawn)}"
    return _percent(rate["value"]), between


def _speakers(drawn: dict[str, Any]) -> str:
    """How many speakers an interval draws; nothing where it draws utterances, as all did up to version 0.2."""
    return f" ({drawn['speakers']} speakers)" if drawn.get("resampled") == "speakers" else ""


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _left_out(found: dict[str, Any]) -> str:
    """Of how many sentences, where some could not be decoded."""
    left_out = len(found.get("not_decoded", []))
    return f" of {found['sentences'] + left_out:,}" if left_out else ""
