"""Normalise transcripts on request; Unicode's form NFC is always applied, last.

``digits``       Cardinal numbers become words of the language, see
                 :mod:`fairseq_skd.corpora.numbers`. A transcript with any other number is refused.
``punctuation``  Apostrophes of all kinds become '. Apostrophes that touch no letter, and quotes
                 around a single word, are removed. Dashes, slashes and marks that separate words
                 become spaces; other punctuation is removed. White space becomes single spaces.
                 Symbols that are spoken ($ % + = @ & ...) stay, and the check of the transcripts
                 refuses them.
``lower``        Lower case by the rules of the language: GO -> go; Turkish I -> ı.
``upper``        Upper case likewise: go -> GO; Turkish i -> İ.

Digits always come first, since they need commas and points; the case comes last.
"""

import argparse
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from fairseq_skd.corpora.languages import base
from fairseq_skd.corpora.records import Fault, Kind, Problem, Record
from fairseq_skd.files.progress import tracked
from fairseq_skd.scoring.leading import is_unspaced

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘＇´`\u05f3", "'"))  # U+05F3: Hebrew geresh
_OKINA = str.maketrans({"‘": "\u02bb", "`": "\u02bb"})
_MODIFIER_APOSTROPHE = "\u02bc"  # an apostrophe in these languages, a letter of its own in others
_APOSTROPHE_TOO = ("en", "uk", "be")
_TO_SPACE = frozenset("−/\\…_\u1361\u30fb\u0f0b")  # Ethiopic word space, Katakana dot, Tibetan tsheg
_BETWEEN_WORDS = re.compile(r"[,;:!?،؛؟۔।॥။၊።፣፤፥፦፧。、，；：！？]")
SPOKEN = frozenset("%&@#*‰‱٪％＆＠＃＊§")
_TATWEEL = "\u0640"
JOINERS = "\u200c\u200d"  # zero width; they shape Persian and Indic letters
_COLON_IN_WORDS = ("fi", "sv")  # Finnish EU:n, Swedish S:t
_LOOSE = re.compile(r"(?<!\w)'(?!\w)")
_QUOTED = re.compile(r"(?<!\S)'([^\s']+)'(?!\S)")
_VIRAMA = 9  # combining class of the sign that removes an Indic vowel; a joiner after it has a meaning
_JOINERS_AT_EDGE = re.compile(f"(?<!\\S)[{JOINERS}]+|[{JOINERS}]+(?!\\S)")


def nfc(text: str) -> str:
    """Compose a text: a letter and its accent become one character where Unicode has it."""
    return unicodedata.normalize("NFC", text)


def lower(text: str, language: str = "en") -> str:
    """Change a text to lower case.

    >>> lower("DIŞ KAPI", "tr"), lower("ΣΟΦΟΣ", "el")
    ('dış kapı', 'σοφος')
    """
    if base(language) in ("tr", "az"):
        text = nfc(text).replace("I", "ı").replace("İ", "i")
    return text.lower()


def upper(text: str, language: str = "en") -> str:
    """Change a text to upper case.

    >>> upper("iki kapı", "tr")
    'İKİ KAPI'
    """
    if base(language) in ("tr", "az"):
        text = nfc(text).replace("i", "İ").replace("ı", "I")
    return text.upper()


def punctuation(text: str, language: str = "en") -> str:
    """Remove punctuation except apostrophes in words.

    A mark between two letters becomes a space if it separates words (ja,nein), unless their script
    has no spaces. A full stop does not (z.B., U.S.), nor a quote or bracket.

    >>> punctuation("Don’t stop, 'please'!")
    "Don't stop please"
    >>> punctuation("ja,nein"), punctuation("क्या?हाँ।"), punctuation("你好，世界。")
    ('ja nein', 'क्या हाँ', '你好世界')
    """
    if text.isascii() and text.isalpha():
        return text
    if base(language) == "haw":
        text = text.translate(_OKINA)
    text = text.translate(_APOSTROPHES)
    if base(language) in _APOSTROPHE_TOO:
        text = text.replace(_MODIFIER_APOSTROPHE, "'")
    text = _LOOSE.sub("", "".join(_cleaned(text, base(language))))
    text = " ".join(_JOINERS_AT_EDGE.sub(_after_virama, text).split())
    return _QUOTED.sub(r"\1", text)


def _after_virama(joiners: re.Match[str]) -> str:
    """Keep joiners at the end of a word after a virama; nobody sees others there."""
    before = joiners.string[joiners.start() - 1] if joiners.start() else " "
    return joiners.group() if unicodedata.combining(before) == _VIRAMA else ""


def _cleaned(text: str, language: str) -> Iterator[str]:
    """Yield the characters that stay, and spaces for marks that separate words."""
    marks = ""
    last = " "  # the character before the marks
    for character in text:
        if _removed(character):
            marks += character
            continue
        if marks and _separate(marks, last, character, language):
            yield " "
        marks, last = "", character
        yield " " if _is_gap(character) else character


@lru_cache(maxsize=4096)
def _is_gap(character: str) -> bool:
    """Whether punctuation becomes a space."""
    return character in _TO_SPACE or unicodedata.category(character) == "Pd"


@lru_cache(maxsize=4096)
def _removed(character: str) -> bool:
    """Whether a character is punctuation, or invisible, and not spoken."""
    if character == "'" or character in SPOKEN or character in JOINERS or _is_gap(character):
        return False
    return unicodedata.category(character)[0] == "P" or unicodedata.category(character) == "Cf" or character == _TATWEEL


def _separate(marks: str, before: str, after: str, language: str) -> bool:
    """Whether removed marks between two characters leave a space."""
    if not (_in_word(before) and _in_word(after)) or (is_unspaced(before) and is_unspaced(after)):
        return False
    if "\u00b7" in marks:  # Catalan l·l is one word; elsewhere the dot separates
        return (before + after).lower() != "ll"
    return bool(_BETWEEN_WORDS.search(marks)) and not (marks == ":" and language in _COLON_IN_WORDS)


@lru_cache(maxsize=4096)
def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


STEPS = ("digits", "punctuation", "lower", "upper")


def chosen_steps(text: str) -> tuple[str, ...]:
    """Parse the value of ``--normalize``.

    Raises:
        argparse.ArgumentTypeError: a step does not exist, or both cases are given.

    >>> chosen_steps("upper,digits")
    ('upper', 'digits')
    """
    steps = tuple(text.split(","))
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no step {unknown[0]!r}; choose from {', '.join(STEPS)}")
    if "lower" in steps and "upper" in steps:
        raise argparse.ArgumentTypeError("lower and upper exclude each other; give one of them")
    return steps


class Normalized(NamedTuple):
    """Normalised transcripts.

    Attributes:
        records: the records with their new texts, in their order; a number that cannot be spelt
            stays.
        notes: one note per step, which counts the changed transcripts and shows the first.
        problems: one per record with a number that cannot be spelt.
    """

    records: list[Record]
    notes: list[str]
    problems: list[Problem]


def normalize(records: Sequence[Record], steps: Sequence[str], language: str = "en") -> Normalized:
    """Apply steps to all transcripts, then NFC.

    Args:
        records: the records as read.
        steps: names in ``STEPS``, which sets the order.
        language: code of the transcripts' language.

    Raises:
        UserError: ``digits`` is among the steps, and num2words is not installed.
    """
    changed = list(records)
    notes: list[str] = []
    problems: list[Problem] = []
    cases: dict[str, Callable[..., str]] = {"punctuation": punctuation, "lower": lower, "upper": upper}
    for name in STEPS:
        if name not in steps:
            continue
        if name == "digits":
            change = _spelling(language, problems)
        else:
            change = partial(_changed, partial(cases[name], language=language))
        count, example = _apply(changed, name, change)
        notes.append(f"--normalize {name} changed {count} of {len(changed)} transcripts{example}")
    count, example = _apply(changed, "NFC", partial(_changed, nfc))
    if count:
        notes.append(f"Unicode form NFC changed {count} of {len(changed)} transcripts{example}")
    return Normalized(changed, notes, problems)


def _changed(step: Callable[[str], str], record: Record) -> str:
    return step(record.text)


def _spelling(language: str, problems: list[Problem]) -> Callable[[Record], str]:
    """Make the step ``digits``, which adds to ``problems`` what it cannot spell."""
    from fairseq_skd.corpora.numbers import Speller  # imported here: most runs do not need it

    spell = Speller(language)

    def change(record: Record) -> str:
        text, refused = spell(record.text)
        if refused:
            problems.append(record.problem(Fault(Kind.NUMBER, "; ".join(refused))))
        return text

    return change


def _apply(records: list[Record], name: str, change: Callable[[Record], str]) -> tuple[int, str]:
    """Change the texts of ``records`` in place; return the number of changes and the first."""
    count, example = 0, ""
    for index, record in enumerate(tracked(records, f"normalizing, {name}", "transcript")):
        text = change(record)
        if text != record.text:
            count += 1
            example = example or f", first {record.source}:{record.line}: {record.text!r} -> {text!r}"
            records[index] = record._replace(text=text)
    return count, example
