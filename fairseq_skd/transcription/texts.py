"""Known texts in the units of a checkpoint, for forced alignment."""

import unicodedata
from collections.abc import Sequence

from fairseq.data import Dictionary

from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.subset import units_of
from fairseq_skd.files.units import WORD_MARK, letters

_MARKS = {"sentencepiece": WORD_MARK, "wordpiece": "_"}
_SHOWN = 5


def units_of_text(text: str, dictionary: Dictionary, process: str) -> list[int]:
    """Spell a text in units.

    Letters: one per character, with ``|`` after each word. Word pieces: the fewest pieces per word,
    of these the longest first; SentencePiece itself may choose others. All other units: the text
    names them, separated by spaces.

    Args:
        text: words separated by spaces.
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.

    Raises:
        UserError: the text is empty, or the dictionary lacks some of its symbols. The message names
            them.
    """
    known = units_of(dictionary)
    if not {sign for unit in known for sign in unit}.issuperset(text.replace(" ", "")):
        text = unicodedata.normalize("NFC", text)  # as in the manifests of fairseq_skd.manifest
    words = text.split()
    if not words:
        raise UserError("the text to align is empty: give the words of the audio")
    if process == "letter":
        units = letters(" ".join(words))
    elif process in _MARKS:
        units = [piece for word in words for piece in _pieces(_MARKS[process] + word, known)]
    else:
        units = words
    missing = [unit for unit in dict.fromkeys(units) if unit not in known]
    if missing:
        names = ", ".join(shown(repr(unit)) for unit in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise UserError(
            f"the text {shown(text, 60)!r} has symbols that the dictionary lacks ({names}): {_fix(text, known)}"
        )
    return [dictionary.index(unit) for unit in units]


def _fix(text: str, known: set[str]) -> str:
    for case, changed in (("upper", text.upper()), ("lower", text.lower())):
        if changed != text and set(changed.replace(" ", "")) <= {sign for unit in known for sign in unit}:
            return f"write it in {case} case"
    return "write the text in the symbols of the training labels"


def _pieces(word: str, known: set[str]) -> Sequence[str]:
    """Cut a word into the fewest known pieces; characters that no piece has stand alone."""
    longest = max(map(len, known), default=1)
    # Per end: number of unknown characters, number of pieces, and the beginning of the last piece.
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(word) + 1):
        options = [
            (best[begin][0], best[begin][1] + 1, begin)
            for begin in range(max(0, end - longest), end)
            if word[begin:end] in known
        ]
        unknown = (best[end - 1][0] + 1, best[end - 1][1] + 1, end - 1)
        best.append(min([*options, unknown], key=lambda option: (option[0], option[1], -option[2])))
    pieces: list[str] = []
    end = len(word)
    while end:
        begin = best[end][2]
        pieces.append(word[begin:end])
        end = begin
    return pieces[::-1]
