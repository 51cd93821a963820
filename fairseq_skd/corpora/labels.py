"""Choose the units of the transcripts, train word pieces, and make the lexicon.

Imports for pieces and lexicon are inside functions: a corpus in letters does not wait for them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.validation import label_faults
from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import working
from fairseq_skd.files.units import LETTERS, NO_UNITS, Units

LEXICON = "lexicon.txt"


class Labels(NamedTuple):
    """The command's options about labels.

    Attributes:
        unit: ``ltr`` (letters), ``spm`` (word pieces), or empty for audio without transcripts.
        vocab_size: number of word pieces to train.
        spm_model: SentencePiece model to use instead of training one.
        train_split: splits from which pieces and lexicon are made.
        lexicon: write a lexicon.
        words: file with the words of the lexicon; None: the words of ``train_split``.
    """

    unit: str = LETTERS.name
    vocab_size: int | None = None
    spm_model: Path | None = None
    train_split: Sequence[str] = ()
    lexicon: bool = False
    words: Path | None = None

    def check(self) -> None:
        """Check for inconsistent options.

        Raises:
            UserError: ``vocab_size`` or ``spm_model`` is given for letters, or word pieces have
                neither or both.
        """
        pieces = self.unit == "spm"
        if not pieces and (self.vocab_size is not None or self.spm_model is not None):
            raise UserError("--vocab-size and --spm-model need --unit spm; add it, or drop them")
        if pieces and (self.vocab_size is None) == (self.spm_model is None):
            raise UserError(
                "--unit spm needs either --vocab-size, to train pieces, or --spm-model, to use given pieces"
            )


def choose_units(labels: Labels, records: Sequence[Record]) -> Units | None:
    """Choose letters, read word pieces, or train word pieces.

    Returns:
        the units; None if some transcripts are invalid, so that no pieces can be trained.

    Raises:
        UserError: the pieces cannot be read or trained.
    """
    if labels.unit == LETTERS.name:
        return LETTERS
    if labels.unit == NO_UNITS.name:
        return NO_UNITS
    from fairseq_skd.corpora.pieces import read_pieces, train_pieces

    if labels.spm_model is not None:
        return read_pieces(labels.spm_model)
    texts = [record.text for record in _training(labels, records)]
    if any(fault for record in records for fault in label_faults(record)):
        return None
    with working(f"training {labels.vocab_size} word pieces on {len(texts)} transcripts"):
        return train_pieces(texts, labels.vocab_size or 0)


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
        fix = "name the splits with --train-split" + (", or give --spm-model" if labels.unit == "spm" else "")
        raise UserError(f"there is no split {missing[0] if missing else 'train'}, only {', '.join(there)}; {fix}")
    return [record for record in records if record.split in wanted]
