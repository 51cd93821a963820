"""Choose fonts for figures whose labels need characters that matplotlib's own font lacks.

matplotlib takes a list of families and looks for each character in all of them. Its own list of
fonts is made once and kept on disk, so this module reads the installed fonts themselves: a font
that was installed a minute ago counts.
"""

import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

_SHOWN = 12  # characters that the message lists
_UPRIGHT = ("regular", "book", "roman", "normal")
# Fonts with a placeholder for every character.
_PLACEHOLDERS = ("Last Resort", "LastResort", "Adobe Blank")
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC")
SHAPES = tuple(int(part) for part in matplotlib.__version__.split(".")[:2]) >= (3, 11)  # joins and orders letters


class Font(NamedTuple):
    """An installed font."""

    family: str
    file: str
    characters: frozenset[int]


def choose(needed: Iterable[str], fonts: Sequence[Font]) -> tuple[list[Font], set[str]]:
    """Choose few fonts that have all characters together: each time the one with most of the rest.

    Of equally good ones, Noto Sans comes first, then the rest of Noto.

    Returns:
        the fonts, and the characters that no font has.

    >>> latin, greek = (Font(name, name, frozenset(map(ord, name))) for name in ("abc", "αβ"))
    >>> found, missing = choose("abα你", [latin, greek])
    >>> [font.family for font in found], missing
    (['abc', 'αβ'], {'你'})
    """
    chosen, rest = [], {ord(character) for character in needed}
    while rest and fonts:
        best = max(fonts, key=lambda font: (len(rest & font.characters), _rank(font), font.family))
        if not rest & best.characters:
            break
        chosen.append(best)
        rest -= best.characters
    return chosen, set(map(chr, rest))


def _rank(font: Font) -> int:
    return font.family.startswith("Noto") + font.family.startswith("Noto Sans")


def installed() -> list[Font]:
    """Read the upright fonts of this machine, in order of their files."""
    read = (_read(path) for path in sorted(font_manager.findSystemFonts()))
    return [font for font in read if font is not None]


def _read(path: str) -> Font | None:
    """Read family and characters; None if the font cannot be used."""
    try:
        font = FT2Font(path)
        if not font.scalable or font.style_name.lower() not in _UPRIGHT:
            return None
        if font.family_name.startswith(_PLACEHOLDERS):
            return None
        return Font(font.family_name, path, frozenset(font.get_charmap()))
    except (OSError, RuntimeError, ValueError):  # damaged, or of a kind that FreeType does not read
        return None


@contextmanager
def showing(texts: Iterable[str], program: str = "fairseq_skd.align") -> Iterator[None]:
    """Draw and save figures with these texts inside the block.

    If no installed font has some characters, one sentence on stderr names them and a package.

    Args:
        texts: all texts of the figures.
        program: beginning of the sentence.
    """
    families = list(matplotlib.rcParams["font.family"])
    own = frozenset(FT2Font(font_manager.findfont(FontProperties())).get_charmap())
    needed = {character for text in texts for character in text if _is_drawn(character) and ord(character) not in own}
    if needed:
        chosen, missing = choose(needed, installed())
        for font in chosen:
            font_manager.fontManager.addfont(font.file)
        families += [font.family for font in chosen]
        if missing:
            print(f"{program}: {_sentence(missing)}", file=sys.stderr)
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # the sentence says it
        warnings.filterwarnings("ignore", "Matplotlib currently does not support .* natively")
        yield


def _is_drawn(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ"


def _sentence(missing: Iterable[str]) -> str:
    ordered = sorted(missing)
    east = [character for character in ordered if _is_east_asian(character)]
    others = [character for character in ordered if not _is_east_asian(character)]
    told = [(east, "fonts-noto-cjk"), (others, "fonts-noto-core")]
    where = " and ".join(f"{package} (for {_listed(group)})" for group, package in told if group)
    return f"no installed font has {len(ordered)} characters of the figures, which show boxes: install {where}"


def _is_east_asian(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_EAST_ASIAN)


def _listed(characters: Sequence[str]) -> str:
    more = f" and {len(characters) - _SHOWN} more" if len(characters) > _SHOWN else ""
    return " ".join(map(standing_alone, characters[:_SHOWN])) + more


def standing_alone(symbol: str) -> str:
    """Write a symbol so that it can be read alone: a mark on a circle, a joiner by its name.

    >>> standing_alone("\u200c"), standing_alone("\u0308") == "◌\u0308", standing_alone("ü")
    ('ZWNJ', True, 'ü')
    """
    if symbol in _JOINERS:
        return _JOINERS[symbol]
    return f"◌{symbol}" if is_mark(symbol) else symbol


_JOINERS = {"\u200c": "ZWNJ", "\u200d": "ZWJ"}


def is_mark(symbol: str) -> bool:
    """Whether a symbol begins with a combining mark, such as a vowel sign of Devanagari."""
    return unicodedata.category(symbol[:1] or " ")[0] == "M"


def can_be_written(text: str) -> bool:
    """Whether matplotlib writes a whole text correctly.

    Before 3.11 it neither joins letters nor orders them: no right-to-left script, no marks.
    """
    return SHAPES or not any(is_mark(one) or unicodedata.bidirectional(one) in ("R", "AL") for one in text)
