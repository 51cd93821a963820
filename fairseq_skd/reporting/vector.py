"""Matplotlib figures as SVG that stands inside a page: its colours follow the page's, it names nothing outside."""

import io
import itertools
import re

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

_numbers = itertools.count()


def inline_svg(figure: Figure, label: str) -> Markup:
    """The figure as an ``<svg>`` element without background.

    Black becomes the page's text colour, text stays text, and identifiers are unique in the page.

    Args:
        figure: whose backgrounds are taken away.
        label: what a screen reader says.
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
