"""Choose the units of the transcripts, train word pieces, and make the lexicon.

Imports for pieces and lexicon are inside functions: a corpus in letters does not wait for them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.languages import checked_language, is_english
from fairseq_skd.corpora.numbers import spells
from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.validation import label_faults
from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import working
from fairseq_skd.files.units import LETTERS, NO_UNITS, Letters, NoUnits, Symbols, Units

LEXICON = "lexicon.txt"


class Labels(NamedTuple):
    """The command's options about labels.

    Attributes:
        unit: ``ltr`` (letters), ``spm`` (word pieces), ``phn`` (symbols with spaces between), or
            empty for audio without transcripts.
        vocab_size: number of word pieces to train.
        spm_model: SentencePiece model to use instead of training one.
        train_split: splits from which pieces and lexicon are made.
        lexicon: write a lexicon.
        words: file with the words of the lexicon; None: the words of ``train_split``.
        language: code of the transcripts' language, such as ``de``; empty: English.
        dictionary: fairseq dictionary that gives the alphabet; None: the language and the training
            transcripts give it.
    """

    unit: str = LETTERS.name
    vocab_size: int | None = None
    spm_model: Path | None = None
    train_split: Sequence[str] = ()
    lexicon: bool = False
    words: Path | None = None
    language: str = ""
    dictionary: Path | None = None

    def check(self, steps: Sequence[str] = ()) -> None:
        """Check for inconsistent options, also with the steps of ``--normalize``.

        Raises:
            UserError: ``vocab_size`` or ``spm_model`` is given without word pieces, word pieces
                have neither or both, ``language`` is not a code, or ``dictionary``, ``lexicon`` or
                a step does not fit the units.
        """
        if self.language:
            checked_language(self.language)
        pieces = self.unit == "spm"
        if not pieces and (self.vocab_size is not None or self.spm_model is not None):
            raise UserError("--vocab-size and --spm-model need --unit spm; add it, or drop them")
        if pieces and (self.vocab_size is None) == (self.spm_model is None):
            raise UserError(
                "--unit spm needs either --vocab-size, to train pieces, or --spm-model, to use given pieces"
            )
        if pieces and self.dictionary is not None:
            raise UserError("--dict gives letters or symbols, not word pieces; with --unit spm use --spm-model FILE")
        if self.unit == Symbols.name and self.lexicon:
            raise UserError("--lexicon needs words, which transcripts of --unit phn do not have; drop it")
        unfit = [step for step in steps if step in ("digits", "punctuation")]
        if self.unit == Symbols.name and unfit:
            raise UserError(f"--normalize {unfit[0]} is for words, but --unit phn takes symbols as they are; drop it")


def choose_units(labels: Labels, records: Sequence[Record]) -> Units:
    """Choose letters or symbols, read word pieces, or train word pieces.

    Args:
        labels: the options.
        records: all utterances, in NFC.

    Returns:
        the units. If word pieces are to be trained and some transcripts are invalid, they know only
        the alphabet; the transcripts have to be refused.

    Raises:
        UserError: the pieces cannot be read or trained, ``labels.dictionary`` cannot be used, or
            there is no training split.
    """
    if labels.unit == NO_UNITS.name:
        return NO_UNITS
    if labels.spm_model is not None:
        from fairseq_skd.corpora.pieces import read_pieces

        return read_pieces(labels.spm_model)
    alphabet = _alphabet(labels, records)
    if alphabet is not LETTERS and labels.language:
        alphabet.spells = spells(labels.language)
    if labels.unit != "spm":
        return alphabet
    from fairseq_skd.corpora.pieces import train_pieces

    texts = [record.text for record in _training(labels, records)]
    if any(fault for record in records for fault in label_faults(record, alphabet)):
        return NoUnits(alphabet)
    with working(f"training {labels.vocab_size} word pieces on {len(texts)} transcripts"):
        pieces = train_pieces(texts, labels.vocab_size or 0, alphabet.alphabet)
    pieces.notes = alphabet.notes
    return pieces


def _alphabet(labels: Labels, records: Sequence[Record]) -> Letters | Symbols:
    """Choose the alphabet: of a dictionary, of English, or of the training transcripts."""
    if labels.dictionary is None and labels.unit != Symbols.name and is_english(labels.language):
        return LETTERS
    from fairseq_skd.corpora.alphabets import letters_of, read_alphabet, symbols_of

    if labels.dictionary is not None:
        return read_alphabet(labels.dictionary, labels.unit)
    training = _training(labels, records)
    return symbols_of(training) if labels.unit == Symbols.name else letters_of(training)


def make_lexicon(labels: Labels, records: Sequence[Record], units: Units) -> dict[str, bytes]:
    """Make the lexicon, as file name and content; an empty dict if the options ask for none.

    Raises:
        UserError: the split of the words does not exist, or the file of words is invalid.
    """
    if not labels.lexicon:
        return {}
    from fairseq_skd.corpora.writing import lexicon, read_words

    if labels.words is not None:
        words = read_words(labels.words, units)
    else:
        words = [word for record in _training(labels, records) for word in record.text.split()]
    return {LEXICON: lexicon(words, units).encode()}


def _training(labels: Labels, records: Sequence[Record]) -> list[Record]:
    """Select the records from which pieces and lexicon are made."""
    there = list(dict.fromkeys(record.split for record in records))
    wanted = list(labels.train_split)
    if not wanted:  # LibriSpeech has no split train, but train-clean-100
        wanted = ["train"] if "train" in there else [split for split in there if split.startswith("train")]
    missing = [split for split in wanted if split not in there]
    if missing or not wanted:
        fix = f"name the splits with --train-split, or give {'--spm-model' if labels.unit == 'spm' else '--dict FILE'}"
        raise UserError(f"there is no split {missing[0] if missing else 'train'}, only {', '.join(there)}; {fix}")
    return [record for record in records if record.split in wanted]
