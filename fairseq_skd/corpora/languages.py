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
_NAMES = {
    **{"dutch": "nl", "english": "en", "french": "fr", "german": "de", "italian": "it", "polish": "pl"},
    **{"portuguese": "pt", "spanish": "es"},
}


def language_code(name: object) -> str:
    """Turn a source's name of a language into a code, with its region; empty if there is no name.

    A name that is not known stays, and :func:`is_code` refuses it.

    >>> [language_code(name) for name in ("German", "sv_se", "cmn_hans_cn", None)]
    ['de', 'sv-SE', 'zh-Hans-CN', '']
    """
    if not isinstance(name, str):
        return ""
    language, *rest = re.split("[-_]", name.strip().lower())
    parts = [part.upper() if len(part) == 2 else part.title() if len(part) == 4 else part for part in rest]
    code = "-".join([_NAMES.get(language) or _SHORT.get(language) or language, *parts])
    return code if is_code(code) else name.strip()


def is_code(code: str) -> bool:
    """Whether a text has the form of a language code, such as ``pt-BR``."""
    return bool(_CODE.fullmatch(code))


def checked_language(code: str) -> str:
    """Check the form of a language code.

    >>> checked_language("pt-BR")
    'pt-BR'

    Raises:
        UserError: the code has another form, or the language has a shorter code.
    """
    language = code.split("-")[0]
    if not is_code(code):
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
