"""Fonts for figures: chosen from invented lists, and from the fonts of this machine."""

import io
import warnings

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairseq_skd.alignment import fonts
from fairseq_skd.alignment.fonts import Font, can_be_written, choose, installed, showing

HINDI, CHINESE, ARABIC = "नमस्ते", "你好", "مرحبا"


def font(family, characters):
    return Font(family, f"/{family}.ttf", frozenset(map(ord, characters)))


def families(needed, *offered):
    chosen, missing = choose(needed, offered)
    return [one.family for one in chosen], "".join(sorted(missing))


def test_few_fonts_are_chosen_and_noto_first():
    offered = [font("Alpha", "ab"), font("Noto Serif X", "abc"), font("Noto Sans X", "abc"), font("Wide", "abcd")]
    assert families("abc", *offered[:3]) == (["Noto Sans X"], "")
    assert families("abc", offered[1], offered[0]) == (["Noto Serif X"], "")
    assert families("abcd", *offered) == (["Wide"], "")
    assert families("abz", offered[0]) == (["Alpha"], "z")
    assert families("z") == ([], "z")


def draw(text):
    figure = Figure()
    FigureCanvasAgg(figure)
    figure.text(0.1, 0.5, text)
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("text", [HINDI, CHINESE, ARABIC])
def test_an_installed_font_is_used(text, capsys):
    _, missing = choose(text, installed())
    if missing:
        pytest.skip(f"no installed font has {missing}, such as Debian's fonts-noto-core and fonts-noto-cjk")
    with showing([text]), warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")  # matplotlib's own for a placeholder
        first, *others = matplotlib.rcParams["font.family"]
        assert first == "sans-serif" and len(others) == (text != ARABIC)  # matplotlib's own has Arabic letters
        if can_be_written(text):
            draw(text)
    assert capsys.readouterr().err == ""


def test_one_sentence_without_a_font(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "installed", lambda: [font("Alpha", "ab")])
    with showing([CHINESE, HINDI, "a"]), warnings.catch_warnings(record=True) as told:
        draw(CHINESE + HINDI)
    assert not told
    assert capsys.readouterr().err == (
        "fairseq_skd.align: no installed font has 8 characters of the figures, which show boxes: install "
        "fonts-noto-cjk (for 你 好) and fonts-noto-core (for त न म स ◌े ◌्)\n"
    )


def test_latin_text_reads_no_font(monkeypatch):
    monkeypatch.setattr(fonts, "installed", lambda: pytest.fail("fonts were read"))
    before = list(matplotlib.rcParams["font.family"])
    with showing(["GO ON", "Größe, ␣ ◌\u0308 \u200c\n", "Привет"]):
        assert matplotlib.rcParams["font.family"] == before


def test_what_an_old_matplotlib_writes(monkeypatch):
    monkeypatch.setattr(fonts, "SHAPES", False)
    assert [can_be_written(text) for text in ("Größe", CHINESE, "ệ", HINDI, ARABIC)] == [True] * 3 + [False] * 2
