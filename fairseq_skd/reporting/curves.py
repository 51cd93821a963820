"""Learning curves of fairseq runs, drawn: losses, alpha and validation WER over updates."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairseq_skd.reporting.folders import Curve


def draw_curves(runs: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """One row of three panels; a run keeps its colour, an exit its line style.

    Args:
        runs: name -> curves of :func:`~fairseq_skd.reporting.folders.read_log`; names stand in the legends unless there
            is one run only.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, shares, wer = figure.subplots(1, 3)
    for number, (name, curves) in enumerate(runs.items()):
        prefix = f"{name} " if len(runs) > 1 else ""
        colour = f"C{number}"
        for term, style in _terms(curves):
            _plot(losses, curves.get(term), f"{prefix}{term}", colour, style)
        for term, style in (("alpha", "-"), ("blank_teacher", "--"), ("blank_student", ":")):
            _plot(shares, curves.get(term), f"{prefix}{term}", colour, style)
        for term, style in (("valid_wer", "-"), ("valid_student_wer", "--")):
            _plot(wer, curves.get(term), f"{prefix}{term}", colour, style)
    titles = ("loss, bits a sentence", "alpha; share of blank frames", "WER on valid, %")
    for axes, title in zip((losses, shares, wer), titles, strict=True):
        axes.set(title=title, xlabel="updates")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
        else:  # what this criterion does not log
            axes.set_axis_off()
            axes.set_title("")
    if losses.lines:  # Guide-CTC's term is below zero
        drawn = [value for line in losses.lines for value in line.get_ydata()]
        if min(drawn) > 0:
            losses.set_yscale("log")
        else:
            losses.set_yscale("symlog", linthresh=1.0)
    return figure


def _terms(curves: Mapping[str, Curve]) -> Sequence[tuple[str, str]]:
    """What a criterion's loss is made of, and the line style of each term."""
    if "ctc_teacher" in curves:
        return (("ctc_teacher", "-"), ("ctc_student", "--"), ("skd", ":"))
    if "ctc" in curves:
        return (("ctc", "-"), ("kd", ":"))
    return (("loss", "-"), ("valid_loss", "--"))  # another criterion, such as that of pretraining


def _plot(axes: Axes, curve: Curve | None, label: str, colour: str, style: str) -> None:
    if curve:
        marker = "o" if len(curve) < 20 else None
        axes.plot(*zip(*curve, strict=True), style, color=colour, label=label, linewidth=1.2, marker=marker, ms=3)
