"""Codes of languages, and what the preparation of transcripts has to know about a language."""

import re

from fairseq_skd.errors import UserError

_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_SHORT = {
    **{"ara": "ar", "aze": "az", "ces": "cs", "cze": "cs", "deu": "de", "ger": "de", "dut": "nl", "eng": "en"},
    **{"fas": "fa", "fin": "fi", "fra": "fr", "fre": "fr", "hin": "hi", "ind": "id", "ita": "it", "nld": "nl"},
    **{"per": "fa", "pol": "pl", "por": "pt", "rus": "ru", "spa": "es", "tur": "tr", "ukr": "uk", "vie": "vi"},
    **{"chi": "zh", "zho": "zh", "cmn": "zh"},
}


def checked_language(code: str) -> str:
    """Check the form of a language code.

    >>> checked_language("pt-BR")
    'pt-BR'

    Raises:
        UserError: the code has another form, or the language has a shorter code.
    """
    language = code.split("-")[0]
    if not _CODE.fullmatch(code):
        raise UserError(f"--language {code!r} is not a language code; write it as in de, hi or pt-BR")
    if language in _SHORT:
        raise UserError(f"--language {code}: this language has a code of two letters; write {_SHORT[language]}")
    return code


def base(code: str) -> str:
    """Return the language without its region or script; English if there is none.

    >>> base("pt-BR"), base("")
    ('pt', 'en')
    """
    return code.split("-")[0] or "en"


def is_english(code: str) -> bool:
    """Whether the language is English, which is assumed if none is named."""
    return base(code) == "en"
