"""Normalise transcripts to the letters A-Z, the apostrophe and single spaces, on request.

``upper``        Upper case: go -> GO.
``punctuation``  Apostrophes of all kinds (’ ‘ ʼ ＇ ´ `) become '. Apostrophes that touch no letter,
                 and quotes around a single word, are removed. Hyphens, dashes and slashes become
                 spaces. Other punctuation is removed. White space becomes single spaces. Symbols
                 that are spoken ($ % + = @ & ...) stay, and the check of the transcripts refuses
                 them.
``digits``       Numbers become English words, by num2words: 21st -> twenty first, 1,500 -> one
                 thousand five hundred, 2.5 -> two point five. Years and digits that are read one by
                 one (1984, 007) become cardinals, too.

Digits always come first, since they need commas and points; upper case comes last.
"""

import argparse
import re
import unicodedata
from collections.abc import Callable, Sequence

from fairseq_skd.corpora.records import Record
from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import tracked

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇´`", "'"))
_TO_SPACE = frozenset("-‐‑‒–—―−/\\…_")
_LOOSE = re.compile(r"(?<!\w)'(?!\w)")
_QUOTED = re.compile(r"(?<!\S)'([^\s']+)'(?!\S)")
_NUMBER = re.compile(r"(?<![0-9])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]+)?(?:(st|nd|rd|th)\b)?", re.IGNORECASE)
_MOST_DIGITS = 15  # longer numbers are not said as one number: they stay, and the check refuses them


def upper(text: str) -> str:
    """Change a text to upper case."""
    return text.upper()


def punctuation(text: str) -> str:
    """Remove punctuation except apostrophes in words.

    >>> punctuation("Don’t stop, 'please'!")
    "Don't stop please"
    """
    text = text.translate(_APOSTROPHES)
    kept = (_plain(character) for character in text)
    text = " ".join(_LOOSE.sub("", "".join(kept)).split())
    return _QUOTED.sub(r"\1", text)


def _plain(character: str) -> str:
    if character in _TO_SPACE:
        return " "
    if character != "'" and unicodedata.category(character).startswith("P") and character not in "%&@#*":
        return ""
    return character


def digits(text: str) -> str:
    """Spell numbers in words.

    Raises:
        UserError: num2words is not installed.
    """
    return _NUMBER.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise UserError("--normalize digits needs num2words: pip install 'fairseq_skd[digits]'") from error
    whole, fraction, ordinal = found.groups()
    number = whole.replace(",", "")
    if len(number) + len(fraction or "") > _MOST_DIGITS or (fraction and ordinal):
        return found.group()
    words = num2words(number + fraction if fraction else int(number), ordinal=bool(ordinal), lang="en")
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    left, right = (" " if neighbour and not neighbour.isspace() else "" for neighbour in (before, after))
    return left + words.replace(",", "").replace("-", " ") + right


STEPS: dict[str, Callable[[str], str]] = {"digits": digits, "punctuation": punctuation, "upper": upper}


def chosen_steps(text: str) -> tuple[str, ...]:
    """Parse the value of ``--normalize``.

    Raises:
        argparse.ArgumentTypeError: a step does not exist.

    >>> chosen_steps("upper,digits")
    ('upper', 'digits')
    """
    steps = tuple(text.split(","))
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no step {unknown[0]!r}; choose from {', '.join(STEPS)}")
    return steps


def normalize(records: Sequence[Record], steps: Sequence[str]) -> tuple[list[Record], list[str]]:
    """Apply steps to all transcripts.

    Args:
        records: the records as read.
        steps: names in ``STEPS``, which sets the order.

    Returns:
        the records with their new texts; and one note per step, which counts the changed
        transcripts and shows the first.
    """
    changed = list(records)
    notes = []
    for name, step in STEPS.items():
        if name not in steps:
            continue
        count, example = 0, ""
        for index, record in enumerate(tracked(changed, f"normalizing, {name}", "transcript")):
            text = step(record.text)
            if text != record.text:
                count += 1
                example = example or f", first {record.source}:{record.line}: {record.text!r} -> {text!r}"
                changed[index] = record._replace(text=text)
        notes.append(f"--normalize {name} changed {count} of {len(changed)} transcripts{example}")
    return changed, notes
