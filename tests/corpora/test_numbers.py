"""Cardinals in words of 14 languages against hand-made words, and every number that is refused."""

import doctest
import sys

import pytest

from fairseq_skd.corpora import numbers
from fairseq_skd.corpora.numbers import Speller
from fairseq_skd.errors import UserError


@pytest.mark.parametrize(
    ("language", "text", "spelt"),
    [
        ("en", "21 of 1,500", "twenty one of one thousand five hundred"),
        ("en-GB", "(105)", "(one hundred and five)"),
        ("de", "21, 1.500 und 217!", "einundzwanzig, eintausendfünfhundert und zweihundertsiebzehn!"),
        ("fr", "71 et 80 et 1\u202f500", "soixante et onze et quatre vingts et mille cinq cents"),
        ("es", "¿16 o 23?", "¿dieciséis o veintitrés?"),
        ("es-MX", "16", "dieciséis"),
        ("it", "23 e 2.000", "ventitré e duemila"),
        ("pt", "16", "dezasseis"),
        ("pt-BR", "16", "dezesseis"),
        ("nl", "22", "tweeëntwintig"),
        ("ru", "«41» и 2\u00a0000", "«сорок один» и две тысячи"),
        ("uk", "5", "п'ять"),
        ("pl", "12", "dwanaście"),
        ("fi", "11", "yksitoista"),
        ("id", "11", "sebelas"),
        ("vi", "15 và 21", "mười lăm và hai mươi mốt"),
        ("en", "0 and 2,000,000", "zero and two million"),
        ("en", "no numbers  here", "no numbers  here"),
    ],
)
def test_cardinals(language: str, text: str, spelt: str):
    assert Speller(language)(text) == (spelt, [])


@pytest.mark.parametrize(
    ("language", "text", "why"),
    [
        ("en", "in 1984", "'1984' may be a year"),
        ("en", "1100", "'1100' may be a year"),
        ("en", "at 12:30.", "'12:30.' is a time"),
        ("en", "the 21st", "'21st' is an ordinal"),
        ("fr", "le 1er", "'1er' is an ordinal"),
        ("es", "1º", "'1º' is an ordinal"),
        ("de", "am 3. Mai", "'3.' may be an ordinal: remove the full stop if it is a cardinal"),
        ("en", "2.5", "'2.5' is a decimal, a date, or has other separators than the language"),
        ("de", "1,500", "'1,500' is a decimal, a date, or has other separators than the language"),
        ("es-MX", "1.500", "'1.500' is a decimal, a date, or has other separators than the language"),
        ("en", "007", "'007' begins with zero"),
        ("en", "1234567890123456", "'1234567890123456' has more than 15 digits"),
        ("en", "mp3s", "'mp3s' is glued to letters or signs"),
        ("en", "€5", "'€5' is glued to letters or signs"),
        ("de", "5²", "'5²' is glued to letters or signs"),
        ("nl", "1.500", "'1.500' is larger than 1000, above which num2words makes mistakes"),
        ("vi", "1.015", "'1.015' is larger than 1000, above which num2words makes mistakes"),
        (
            "fi",
            "2\u00a0000\u00a0000",
            "'2\\xa0000\\xa0000' is larger than 999999, above which num2words makes mistakes",
        ),
        ("en", "-5", "'-5' is glued to letters or signs"),
        ("en", "10-12", "'10-12' is glued to letters or signs"),
        ("hi", "3", "'3' is a number, and num2words lacks the language hi"),
        ("hi", "३", "'३' is a number, and num2words lacks the language hi"),
        ("zh", "我有3个", "'3' is a number, and num2words lacks the language zh"),
        ("tr", "3", "'3' is a number, and the words of num2words are not right for the language tr"),
        ("fr-CH", "3", "'3' is a number, and the words of num2words are not right for the language fr-CH"),
        ("en", "٣", "'٣' has digits of another script"),
        ("es", "21.000", "'21.000' is larger than 20999, above which num2words makes mistakes"),
    ],
)
def test_numbers_that_stay(language: str, text: str, why: str):
    assert Speller(language)(text) == (text, [why])


def test_a_number_with_spaces_stays_whole():
    kept = Speller("fr")("les 1 500 000 et 500 autres")
    assert kept == (
        "les 1 500 000 et cinq cents autres",
        [
            "'1' may continue in the next number: remove the space in a number",
            "'500' may continue in the next number: remove the space in a number",
            "'000' may continue the number before: remove the space in a number",
        ],
    )


def test_two_numbers_that_stay_and_one_that_is_spelt():
    assert Speller("en")("12:30, 1984, 5") == ("12:30, 1984, five", ["'12:30,' is a time", "'1984,' may be a year"])


def test_the_examples():
    found = doctest.testmod(numbers)
    assert found.attempted and not found.failed


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(UserError, match=r"--normalize digits needs num2words: pip install 'fairseq_skd\[digits\]'"):
        Speller("en")
