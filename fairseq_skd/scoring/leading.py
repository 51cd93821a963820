"""Choose the error rate that leads: CER where a script does not separate words by spaces."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

CER, WER = "cer", "wer"
_UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "YI ")


@lru_cache(maxsize=4096)
def is_unspaced(character: str) -> bool:
    """Whether a letter or mark is of a script without spaces between words.

    These are Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and Yi.

    >>> is_unspaced("你"), is_unspaced("ກ"), is_unspaced("안"), is_unspaced("。")
    (True, True, False, False)
    """
    return unicodedata.category(character)[0] in "LM" and unicodedata.name(character, "").startswith(_UNSPACED)


def leading(references: Iterable[str]) -> str:
    """Return ``cer`` if most letters are of a script without spaces between words, else ``wer``.

    Such a text is one word or a few long ones, so its WER says little. The scripts: see
    :func:`is_unspaced`.

    >>> leading(["你好 世界", "OK"]), leading(["YES", "NO"]), leading(["안녕"])
    ('cer', 'wer', 'wer')
    """
    letters: Counter[str] = Counter()
    for text in references:
        letters.update(text)
    for sign in list(letters):
        if unicodedata.category(sign)[0] not in "LM":
            del letters[sign]
    unspaced = sum(count for sign, count in letters.items() if is_unspaced(sign))
    return CER if 2 * unspaced > letters.total() else WER


def leads(summary: Mapping[str, object]) -> str:
    """Return the leading rate of a ``summary.json``, which names only ``cer``."""
    return CER if summary.get("leading") == CER else WER


def noted(rate: str) -> dict[str, str]:
    """Return what a summary holds about its leading rate: nothing for ``wer``."""
    return {"leading": rate} if rate == CER else {}
