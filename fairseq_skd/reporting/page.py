"""Render the page: tables, figures as SVG, learning curves and players."""

import base64
import hashlib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import fairseq_skd
from fairseq_skd.alignment.figures import draw_history, draw_offsets, shown
from fairseq_skd.files.progress import tracked
from fairseq_skd.reporting import player
from fairseq_skd.reporting.folders import Aligned, Curve, Decoded, Runs
from fairseq_skd.scoring.leading import CER, WER, leads


def draw_curves(runs: Mapping[str, Mapping[str, Curve]], rate: str = "wer") -> Figure:
    """Draw losses, shares and errors in three panels; one color per run, one line style per exit.

    Args:
        runs: name -> curves from :func:`~fairseq_skd.reporting.folders.read_log`. Legends have the
            names if there are several runs.
        rate: ``wer``, or ``uer`` for unit errors.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, shares, errors = figure.subplots(1, 3)
    for number, (name, curves) in enumerate(runs.items()):
        prefix = f"{name} " if len(runs) > 1 else ""
        colour = f"C{number}"
        for term, style in _terms(curves):
            _plot(losses, curves.get(term), f"{prefix}{term}", colour, style)
        for term, style in (("alpha", "-"), ("blank_teacher", "--"), ("blank_student", ":")):
            _plot(shares, curves.get(term), f"{prefix}{term}", colour, style)
        for term, style in ((f"valid_{rate}", "-"), (f"valid_student_{rate}", "--")):
            _plot(errors, curves.get(term), f"{prefix}{term}", colour, style)
    titles = ("loss, bits per sentence", "alpha; share of blank frames", f"{RATES[rate]} on valid, %")
    for axes, title in zip((losses, shares, errors), titles, strict=True):
        axes.set(title=title, xlabel="updates")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
        else:  # the criterion does not log these
            axes.set_axis_off()
            axes.set_title("")
    if losses.lines:  # the term of Guide-CTC is negative
        drawn = [value for line in losses.lines for value in line.get_ydata()]
        if min(drawn) > 0:
            losses.set_yscale("log")
        else:
            losses.set_yscale("symlog", linthresh=1.0)
    return figure


def _terms(curves: Mapping[str, Curve]) -> Sequence[tuple[str, str]]:
    """List the terms of a criterion's loss with their line styles."""
    if "ctc_teacher" in curves:
        return (("ctc_teacher", "-"), ("ctc_student", "--"), ("skd", ":"))
    if "ctc" in curves:
        return (("ctc", "-"), ("kd", ":"))
    return (("loss", "-"), ("valid_loss", "--"))  # another criterion, as in pretraining


def _plot(axes: Axes, curve: Curve | None, label: str, colour: str, style: str) -> None:
    if curve:
        marker = "o" if len(curve) < 20 else None
        axes.plot(*zip(*curve, strict=True), style, color=colour, label=label, linewidth=1.2, marker=marker, ms=3)


_HERE = Path(__file__).parent
_MOST_SYMBOLS = 40
RATES = {"wer": "WER", "uer": "unit error rate"}
DECODED = ("decoded", "subset", "exit", "layers", "parameters", "WER %", "95 % interval", "CER %", "sentences")
UNSPACED = (*DECODED[:5], "CER %", "95 % interval", "WER %", "sentences")
ALIGNED = (
    *("compared", "subset", "teacher", "student"),
    *("frame disagreement %", "95 % interval", "spike disagreement %", "95 % interval", "spike miss %"),
    *("matched spikes on the same frame %", "offset ms", "blank %, teacher / student"),
)
_numbers = itertools.count()


class Table(NamedTuple):
    """A table of text cells; the first ``words`` columns hold words, the others numbers."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int


class Analysis(NamedTuple):
    """The section of one ``align.json``."""

    name: str
    lines: list[str]
    figures: list[Markup]
    symbols: Table
    players: list[player.Player]


def render(runs: Runs, title: str) -> str:
    """Render the whole page."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    spaced, unspaced = ([decoded_row(one) for one in runs.decoded if leads(one.summary) == rate] for rate in (WER, CER))
    errors = "uer" if unspaced and not spaced else "wer"
    tables = [
        Table("Error rates", DECODED, spaced, 3),
        Table("Error rates of text without spaces between words", UNSPACED, unspaced, 3),
        Table("Alignment of teacher and student", ALIGNED, [aligned_row(one) for one in runs.aligned], 4),
    ]
    analyses = [analysis(one) for one in tracked(runs.aligned, "drawing analyses", "analysis")]
    return environment.get_template("report.html.j2").render(
        title=title,
        version=fairseq_skd.__version__,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The only script that may run, whatever a transcript holds.
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        tables=[table for table in tables if table.rows],
        curves=[
            (run.name, inline_svg(draw_curves({run.name: run.curves}, errors), f"learning curves of {run.name}"))
            for run in tracked(runs.trained, "drawing curves", "run")
        ],
        analyses=analyses,
        geometry=player,
    )


def decoded_row(one: Decoded) -> tuple[str, ...]:
    """Make the row of a ``summary.json``, with the columns :data:`DECODED` or :data:`UNSPACED`."""
    found = one.summary
    first, second = (CER, WER) if leads(found) == CER else (WER, CER)
    return (
        one.name,
        Path(found["manifest"]).stem,
        "full" if found["exit_layer"] == found["layers"] else "student",
        f"{found['exit_layer']} of {found['layers']}",
        f"{found['parameters']:,}",
        f"{found[first]:.2f}" if first in found else "-",  # decoded without references
        f"{one.interval.low:.2f} to {one.interval.high:.2f}{_speakers(one.resampled)}" if one.interval else "-",
        f"{found[second]:.2f}" if second in found else "-",
        f"{found['sentences']:,}{_left_out(found)}",
    )


def aligned_row(one: Aligned) -> tuple[str, ...]:
    """Make the row of an ``align.json``, with the columns :data:`ALIGNED`."""
    found = one.found
    blanks = (_percent(found[who]["blank_share"]) for who in ("teacher", "student"))
    return (
        one.name,
        found["subset"],
        *(f"{found[who]['exit_layer']} of {found[who]['layers']}" for who in ("teacher", "student")),
        *_rate(found["frame_disagreement"], found["interval"]),
        *_rate(found["spike_disagreement"], found["interval"]),
        _percent(found["spike_miss"]["value"]),
        _percent(found["offset"]["within_ms"]["0"]),
        "-" if found["offset"]["mean_ms"] is None else f"{found['offset']['mean_ms']:.1f}",
        " / ".join(blanks),
    )


def analysis(aligned: Aligned) -> Analysis:
    """Make figures, symbol table and players of an ``align.json``."""
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
        (shown(row["symbol"]), *(f"{row[key]:,}" for key in ("teacher_spikes", "lost", "missed")))
        for row in found["by_symbol"][:_MOST_SYMBOLS]
    ]
    return Analysis(
        name=aligned.name,
        lines=[f"{names[who]}: {found[who]['checkpoint']}" for who in ("teacher", "student")],
        figures=figures,
        symbols=Table("Teacher spikes per symbol", ("symbol", "spikes", "lost", "missed"), rows, 1),
        players=[
            player.make_player(aligned.folder, example, found["frame_ms"], names) for example in found["examples"]
        ],
    )


def inline_svg(figure: Figure, label: str) -> Markup:
    """Draw a figure as an ``<svg>`` element without background and without outside references.

    Black becomes the text color of the page, text stays text, and identifiers are unique in the
    page.

    Args:
        figure: the figure; its backgrounds are removed.
        label: description for screen readers.
    """
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_visible(False)
    for legend in filter(None, (axes.get_legend() for axes in figure.axes)):
        legend.get_frame().set_visible(False)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fairseq_skd"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    unique = f"figure{next(_numbers)}-"
    for reference in ('id="', "url(#", 'href="#'):
        text = text.replace(reference, reference + unique)
    text = text.replace("#000000", "currentColor")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))


def _rate(rate: dict[str, float | None], drawn: dict[str, Any]) -> tuple[str, str]:
    low, high = rate["low"], rate["high"]
    between = "-" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}{_speakers(drawn)}"
    return _percent(rate["value"]), between


def _speakers(drawn: dict[str, Any]) -> str:
    """Say how many speakers an interval draws; empty if it draws utterances."""
    return f" ({drawn['speakers']} speakers)" if drawn.get("resampled") == "speakers" else ""


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _left_out(found: dict[str, Any]) -> str:
    """Format " of N", with N all sentences, if some were not decoded; else return an empty text."""
    left_out = len(found["not_decoded"])
    return f" of {found['sentences'] + left_out:,}" if left_out else ""
