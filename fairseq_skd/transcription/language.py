"""Build a beam search from a language model; the lexicon can come from the model's own words."""

import dataclasses
import gzip
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fairseq.data import Dictionary

from fairseq_skd.errors import UserError
from fairseq_skd.files.subset import units_of
from fairseq_skd.files.units import letters
from fairseq_skd.search.beam import BeamOptions, BeamSearch
from fairseq_skd.search.language_model import check_language_model, flashlight
from fairseq_skd.search.lexicon import Lexicon, read_lexicon

_MARKS = ("<s>", "</s>", "<unk>", "<UNK>")
_GZIP = b"\x1f\x8b"


def language_search(
    model: Path, lexicon: Path | None, dictionary: Dictionary, process: str, weight: float, word_score: float
) -> BeamSearch:
    """Build a beam search with an n-gram model of words or units.

    A model of units searches over units. A model of words needs a lexicon; for letters it is made
    of the model's own words, if the file is ARPA.

    Args:
        model: ARPA (plain or gzip) or KenLM's binary format.
        lexicon: lines ``WORD<TAB>unit unit ...``; None: none is given.
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.
        weight: of the model's log10 probability.
        word_score: added per word.

    Raises:
        UserError: flashlight-text is missing, a file cannot be used, or a model of words needs a
            lexicon file.
    """
    options = dataclasses.replace(BeamOptions(), lmweight=weight, wordscore=word_score)
    options.check("--")
    flashlight()
    check_language_model(model)
    symbols, blank = dictionary.symbols, dictionary.bos()
    if lexicon is not None:
        return BeamSearch(symbols, blank, options, model, read_lexicon(lexicon, symbols, dictionary.nspecial))
    words = arpa_words(model)
    if words is None:
        raise UserError(f"--lm {model} is in KenLM's binary format, which does not list its words: give --lexicon FILE")
    known = units_of(dictionary)
    if known.issuperset(words):
        return BeamSearch(symbols, blank, options, model, None)
    if process != "letter":
        raise UserError(f"--lm {model} is a model of words, and the units are not letters: give --lexicon FILE")
    spelt = {word: letters(word) for word in words}
    kept = {word: [tuple(map(dictionary.index, units))] for word, units in spelt.items() if known.issuperset(units)}
    if not kept:
        raise UserError(f"--lm {model} has no word in the letters of the dictionary: use the same case in both")
    if left_out := len(words) - len(kept):
        print(f"{left_out} of the {len(words)} words of {model} have other letters: left out", file=sys.stderr)
    return BeamSearch(symbols, blank, options, model, Lexicon(model, kept))


def arpa_words(path: Path) -> list[str] | None:
    """List the words of an ARPA file, plain or gzip; None if the file has another format.

    Raises:
        UserError: the file is damaged.
    """
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        try:
            lines = gzip.open(file) if packed else file  # noqa: SIM115 (closed with the file)
            if not lines.readline().strip().startswith(b"\\data\\"):
                return None
            words = [line.split()[1].decode("utf-8") for line in _unigrams(lines)]
        except (OSError, EOFError, UnicodeDecodeError, IndexError) as error:
            raise UserError(f"--lm {path} cannot be read ({error}): give an ARPA file in UTF-8") from error
    return [word for word in dict.fromkeys(words) if word not in _MARKS]


def _unigrams(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of the section of unigrams."""
    inside = False
    for line in lines:
        if line.startswith(b"\\"):
            if inside:
                return
            inside = line.strip() == b"\\1-grams:"
        elif inside and line.strip():
            yield line
