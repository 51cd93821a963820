"""Spell cardinal numbers in words, by num2words; refuse every other number.

num2words is trusted for the cardinals of the languages below, which were compared with hand-made
words. It has no Hindi and no Chinese. It writes Turkish numbers as one word, and some Czech, Danish
and Swedish numbers wrongly. Japanese, Korean and Thai glue numbers to their counters.
"""

import re
import unicodedata

from fairseq_skd.corpora.languages import base
from fairseq_skd.errors import UserError

_SPACE = "\u00a0\u202f"  # no-break spaces
_SEPARATORS = {
    **{"en": ",", "de": ".", "fr": _SPACE, "es": "." + _SPACE, "it": ".", "pt": "." + _SPACE, "pt-BR": "."},
    **{"nl": ".", "ru": _SPACE, "uk": _SPACE, "pl": _SPACE, "fi": _SPACE, "id": ".", "vi": "."},
}
"""Languages whose cardinals are spelt, and what separates thousands in them."""

# Regions with other words or other separators than their language.
_OTHER_WORDS = ("en-IN", "en-PK", "en-BD", "fr-BE", "fr-CH", "fr-LU")
_OTHER_SEPARATORS = ("de-AT", "de-CH", "de-LI", "it-CH", "en-ZA")
_OTHER_SEPARATORS_BASE = ("es",)  # Mexico and others write 1,500
_ORDINAL_POINT = ("de", "pl", "fi")
# num2words writes veintiuno mil for 21000, kaksimiljoonaa as one word, no space after duizend, and
# một nghìn lẻ mười lăm for 1015.
_LARGEST = {"es": 20_999, "fi": 999_999, "nl": 1_000, "vi": 1_000}

_TOKEN = re.compile(rf"(?<!\S)\S*\d\S*(?:[{_SPACE}]\d\S*)*")
_OPENING = "\"'“”„‟«»‹›‘’‚([{¿¡"
_CLOSING = "\"'“”„«»‹›‘’)]}.,;:!?…"
_MOST_DIGITS = 15
_YEARS = range(1100, 2100)


def _digits(token: str) -> str:
    return re.findall(r"\d(?:[\d.,:]*\d)?", token)[0]


def spells(language: str) -> bool:
    """Whether ``digits`` knows a language.

    >>> spells("de-AT"), spells("zh"), spells("fr-CH")
    (True, False, False)
    """
    return (language in _SEPARATORS or base(language) in _SEPARATORS) and language not in _OTHER_WORDS


class Speller:
    """Spell the numbers of transcripts.

    >>> Speller("de")("Sie hat 21 Hunde.")
    ('Sie hat einundzwanzig Hunde.', [])
    >>> Speller("en")("at 12:30")
    ('at 12:30', ["'12:30' is a time"])

    Args:
        language: code of the language.

    Raises:
        UserError: num2words is not installed.
    """

    def __init__(self, language: str) -> None:
        try:
            from num2words import CONVERTER_CLASSES, num2words
        except ImportError as error:
            raise UserError("--normalize digits needs num2words: pip install 'fairseq_skd[digits]'") from error
        self._num2words = num2words
        self.language = language if language in _SEPARATORS else base(language)
        self.known = spells(language)
        own = language in _OTHER_SEPARATORS or (self.language in _OTHER_SEPARATORS_BASE and language != self.language)
        self.separators = "" if own else _SEPARATORS.get(self.language, "")
        self._wanted = language
        there = self.language in CONVERTER_CLASSES
        self._lack = "the words of num2words are not right for" if there else "num2words lacks"

    def __call__(self, text: str) -> tuple[str, list[str]]:
        """Spell the numbers of a text.

        Returns:
            the text, and for each number that stays why it was not spelt.
        """
        if not any(map(str.isdecimal, text)):
            return text, []
        refused: list[str] = []
        parts: list[str] = []
        last = 0
        for found in _TOKEN.finditer(text):
            token = found.group()
            start = len(token) - len(token.lstrip(_OPENING))
            stop = max(start, len(token.rstrip(_CLOSING)))
            number = token[start:stop]
            why = self._why_not(number, token[stop:], text[: found.start()], text[found.end() :])
            if why:
                # Chinese has no spaces: there the token is the whole sentence
                refused.append(f"{(token if self.known else _digits(token))!r} {why}")
                continue
            parts += [text[last : found.start() + start], self._words(number)]
            last = found.start() + stop
        return "".join([*parts, text[last:]]), refused

    def _why_not(self, number: str, after: str, before: str, rest: str) -> str:
        """Say why a number is not a plain cardinal; empty if it is."""
        if not self.known:
            return f"is a number, and {self._lack} the language {self._wanted}"
        if not number.isascii() and any(sign.isdecimal() and not sign.isascii() for sign in number):
            return "has digits of another script"
        if re.fullmatch(r"\d{1,2}[:.h]\d{2}([:.]\d{2})?", number) and ":" in number:
            return "is a time"
        grouped = self._grouped(number)
        if not number.isdecimal() and not grouped:  # the digit of 5² is no decimal
            if re.fullmatch(r"\d+(st|nd|rd|th|er|re|ère|e|ème|º|ª|°|\.º|\.ª)", number, re.IGNORECASE):
                return "is an ordinal"
            if re.fullmatch(r"[\d.,'’\s]+", number):
                return "is a decimal, a date, or has other separators than the language"
            return "is glued to letters or signs"
        if after.startswith(".") and self.language in _ORDINAL_POINT:
            return "may be an ordinal: remove the full stop if it is a cardinal"
        if not grouped and re.match(r"\s\d{3}(?!\d)", rest) and not after and 1 <= len(number) <= 3:
            return "may continue in the next number: remove the space in a number"
        if not grouped and len(number) == 3 and re.search(r"(?<!\S)\d{1,3}(\s\d{3})*\s$", before):
            return "may continue the number before: remove the space in a number"
        digits = re.sub(r"\D", "", number)
        if digits != "0" and digits.startswith("0"):
            return "begins with zero"
        if len(digits) > _MOST_DIGITS:
            return f"has more than {_MOST_DIGITS} digits"
        if int(digits) > _LARGEST.get(self.language, int(digits)):
            return f"is larger than {_LARGEST[self.language]}, above which num2words makes mistakes"
        if not grouped and len(digits) == 4 and int(digits) in _YEARS:
            return "may be a year"
        return ""

    def _grouped(self, number: str) -> bool:
        """Whether a number has its thousands separated as the language does it."""
        separators = "".join(sorted(set(number) & set(self.separators)))
        return len(separators) == 1 and bool(re.fullmatch(rf"[1-9]\d{{0,2}}({re.escape(separators)}\d{{3}})+", number))

    def _words(self, number: str) -> str:
        words = str(self._num2words(int(re.sub(r"\D", "", number)), lang=self.language.replace("-", "_")))
        words = unicodedata.normalize("NFC", words).replace(",", "").replace("-", " ")
        return " ".join(words.split())
