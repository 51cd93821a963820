"""Build a beam search from a language model or phrases, or from both."""

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
from fairseq_skd.search.phrases import check_scale, read_phrases

_MARKS = ("<s>", "</s>", "<unk>", "<UNK>")
_GZIP = b"\x1f\x8b"


def beam_search(
    dictionary: Dictionary,
    process: str,
    model: Path | None = None,
    lexicon: Path | None = None,
    weight: float = 2.0,
    word_score: float = -1.0,
    phrases: Path | None = None,
    phrase_weight: float = 1.0,
) -> BeamSearch:
    """Build a beam search with an n-gram model of words or units, with phrases to prefer, or both.

    Without a model, and with a model of units, the search is over units. A model of words needs a
    lexicon; for letters it is made of the model's own words, if the file is ARPA.

    Args:
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.
        model: ARPA (plain or gzip) or KenLM's binary format; None: no language model.
        lexicon: lines ``WORD<TAB>unit unit ...``; None: none is given.
        weight: of the model's log10 probability.
        word_score: added per word of a lexicon.
        phrases: lines ``PHRASE`` or ``PHRASE<TAB>WEIGHT``; None: none.
        phrase_weight: factor of the weights of all phrases.

    Raises:
        UserError: flashlight-text is missing, a file cannot be used, a weight is out of range, or a
            model of words needs a lexicon file.
    """
    options = dataclasses.replace(BeamOptions(), lmweight=weight, wordscore=word_score)
    options.check("--")
    check_scale("--phrase-weight ", phrase_weight)
    flashlight()
    symbols, specials = dictionary.symbols, dictionary.nspecial
    words = None
    if model is not None:
        check_language_model(model)
        words = _lexicon(model, lexicon, dictionary, process)
    preferred = None
    if phrases is not None:
        preferred = read_phrases(phrases, phrase_weight, symbols, specials, process, words)
        words = preferred.with_words(words) if words is not None else None
    return BeamSearch(symbols, dictionary.bos(), options, model, words, preferred)


def _lexicon(model: Path, lexicon: Path | None, dictionary: Dictionary, process: str) -> Lexicon | None:
    """Return the lexicon for a language model; None for a model of units."""
    if lexicon is not None:
        return read_lexicon(lexicon, dictionary.symbols, dictionary.nspecial)
    words = arpa_words(model)
    if words is None:
        raise UserError(f"--lm {model} is in KenLM's binary format, which does not list its words: give --lexicon FILE")
    known = units_of(dictionary)
    if known.issuperset(words):
        return None
    if process != "letter":
        raise UserError(f"--lm {model} is a model of words, and the units are not letters: give --lexicon FILE")
    spelt = {word: letters(word) for word in words}
    kept = {word: [tuple(map(dictionary.index, units))] for word, units in spelt.items() if known.issuperset(units)}
    if not kept:
        raise UserError(f"--lm {model} has no word in the letters of the dictionary: use the same case in both")
    if left_out := len(words) - len(kept):
        print(f"{left_out} of the {len(words)} words of {model} have other letters: left out", file=sys.stderr)
    return Lexicon(model, kept)


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
