"""Find the alphabet of a corpus, and say what to do about symbols outside it."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fairseq_skd.corpora.normalization import JOINERS, SPOKEN, punctuation
from fairseq_skd.corpora.records import Record, described
from fairseq_skd.errors import UserError
from fairseq_skd.files.units import WORD_END, Letters, Symbols, Units, is_symbol, letters

_MORE_LETTERS = "'〇" + JOINERS  # Unicode calls 〇 a number, but Chinese writes it among letters
RESERVED = ("<s>", "<pad>", "</s>", "<unk>", WORD_END)
_RARE = 5  # a symbol of the training transcripts that occurs at most so often ...
_SHARE = 100  # ... and at most once in so many symbols is named
_MOST_RARE = 10
_LACKING = "the training transcripts lack it: correct the text, or give the"
_PHONES = "train with task.labels=[phn] criterion.post_process=none; the WER then counts symbols"


def is_letter(character: str) -> bool:
    """Whether a character belongs to the alphabet of any language.

    >>> [is_letter(character) for character in "ß'ʻ\u094d\u200c〇"], is_letter("7"), is_letter("-")
    ([True, True, True, True, True, True], False, False)
    """
    return character in _MORE_LETTERS or unicodedata.category(character)[0] in "LM"


def letters_of(records: Sequence[Record]) -> Letters:
    """Take the alphabet from training transcripts; ``|`` and the frequent letters come first."""
    there: set[str] = set().union(*(record.text for record in records))
    alphabet = set(filter(is_letter, there))
    counts, notes = _count(records, letters, {*alphabet, WORD_END})
    lower, upper = (sum(map(cased, alphabet)) for cased in (str.islower, str.isupper))
    if lower and upper:
        notes.append(
            f"the alphabet has {lower} lower-case and {upper} upper-case letters; --normalize lower makes one case"
        )
    return Letters(alphabet, _dictionary(counts), notes, f"{_LACKING} alphabet with --dict FILE")


def symbols_of(records: Sequence[Record]) -> Symbols:
    """Take the symbols from training transcripts; the frequent ones come first."""
    alphabet = {symbol for record in records for symbol in set(record.text.split()) if _is_unit(symbol)}
    counts, notes = _count(records, str.split, alphabet)
    return Symbols(alphabet, _dictionary(counts), [*notes, _PHONES], f"{_LACKING} symbols with --dict FILE")


def _is_unit(symbol: str) -> bool:
    return is_symbol(symbol) and symbol not in RESERVED


def _count(
    records: Sequence[Record], split: Callable[[str], Iterable[str]], alphabet: set[str]
) -> tuple[Counter[str], list[str]]:
    """Count the symbols of transcripts, and make notes on their number and on the rare ones."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(split(record.text))
    for symbol in counts.keys() - alphabet:
        del counts[symbol]
    notes = [f"the alphabet has {len(alphabet - {WORD_END})} symbols, those of the training transcripts"]
    most = min(_RARE, sum(counts.values()) // _SHARE)
    rare = sorted((count, symbol) for symbol, count in counts.items() if count <= most)
    first: dict[str, Record] = {}
    named_symbols = {symbol for _, symbol in rare[:_MOST_RARE]}
    for record in records if named_symbols else ():
        for symbol in named_symbols.intersection(split(record.text)):
            first.setdefault(symbol, record)
    for count, symbol in rare[:_MOST_RARE]:
        times = "once, in" if count == 1 else f"only {count} times, first"
        notes.append(
            f"the alphabet has {described(symbol)}, which occurs {times} {first[symbol].source}:{first[symbol].line}"
        )
    if len(rare) > _MOST_RARE:
        notes.append(f"{len(rare) - _MOST_RARE} more symbols of the alphabet occur at most {most} times")
    return counts, notes


def _dictionary(counts: Counter[str]) -> bytes:
    """Write a fairseq dictionary: ``|``, then symbols by descending count and code point."""
    order = sorted(counts.items(), key=lambda item: (item[0] != WORD_END, -item[1], item[0]))
    return "".join(f"{symbol} {count}\n" for symbol, count in order).encode()


def read_alphabet(path: Path, unit: str) -> Letters | Symbols:
    """Read the alphabet from a fairseq dictionary, whose bytes are written again.

    Args:
        path: the dictionary.
        unit: ``ltr`` or ``phn``.

    Raises:
        UserError: the file cannot be read, or ``unit`` cannot use its symbols.
    """
    from fairseq_skd.files.dictionaries import read_dictionary  # imports fairseq, which takes long

    dictionary = read_dictionary(path)
    symbols = dictionary.symbols[dictionary.nspecial :]
    for symbol in symbols:
        if unicodedata.normalize("NFC", symbol) != symbol:
            raise UserError(
                f"--dict {path}: the symbol {symbol!r} is not in Unicode form NFC, but transcripts are: convert the "
                f"file to NFC"
            )
        if not is_symbol(symbol):
            raise UserError(f"--dict {path}: the symbol {symbol!r} holds a control character: remove it")
    content = path.read_bytes()
    lacking = f"{path} lacks it: correct the text, or give another --dict"
    notes = [f"the alphabet has {len(symbols) - (WORD_END in symbols)} symbols, those of {path}"]
    if unit == Symbols.name:
        if WORD_END in symbols:
            raise UserError(f"--dict {path}: has the word boundary {WORD_END}, which --unit phn lacks: use --unit ltr")
        return Symbols(symbols, content, [*notes, _PHONES], lacking)
    # <unk> and [UNK] of other tools may stay: no transcript is spelt with them
    long = [symbol for symbol in symbols if len(symbol) > 1 and symbol[0] + symbol[-1] not in ("<>", "[]")]
    if long:
        raise UserError(
            f"--dict {path}: the symbol {long[0]!r} is not one character: use --unit phn for symbols with spaces "
            f"between, or --unit spm --spm-model FILE for word pieces"
        )
    if WORD_END not in symbols:
        raise UserError(
            f"--dict {path}: lacks {WORD_END}, which --unit ltr writes after each word: add the line '{WORD_END} 1'"
        )
    return Letters(symbols, content, notes, lacking)


def fix(symbol: str, units: Units) -> str:
    """Say what to do about a symbol that the units lack."""
    if symbol in RESERVED:
        return "fairseq reserves it: write what is said"
    for case in ("upper", "lower"):
        changed = getattr(symbol, case)()
        if changed != symbol and len(changed) == len(symbol) and not units.outside(changed):
            return f"add --normalize {case}"
    if units.name == Symbols.name:
        return units.lacking if is_symbol(symbol) else "a symbol holds no control characters: remove it"
    if symbol.isdecimal():
        return f"{'add --normalize digits, or ' if units.spells else ''}write it in words"
    if symbol in SPOKEN or (unicodedata.category(symbol)[0] in "NS" and punctuation(symbol) == symbol):
        return "write it in words"
    if punctuation(symbol) != symbol or symbol.isspace():
        return "add --normalize punctuation"
    if unicodedata.category(symbol)[0] == "C":
        return "no script has this character: correct the text"
    return units.lacking
