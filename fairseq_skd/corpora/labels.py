"""Which units the transcripts are written in, and from which of them word pieces and lexicon are made.

What makes pieces and lexicon is imported where it is wanted: a small folder of letters need not wait for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.validation import label_faults
from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import working
from fairseq_skd.files.units import LETTERS, Units

LEXICON = "lexicon.txt"


class Labels(NamedTuple):
    """The command's options about labels.

    ``unit`` is ``ltr`` or ``spm``; ``vocab_size`` pieces are trained, or ``spm_model`` is taken; ``train_split`` names
    the splits that pieces and lexicon are made from; ``lexicon`` asks for one, of the words in the file ``words`` if
    that is given.
    """

    unit: str = LETTERS.name
    vocab_size: int | None = None
    spm_model: Path | None = None
    train_split: Sequence[str] = ()
    lexicon: bool = False
    words: Path | None = None

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UserError: naming them.
        """
        pieces = self.unit == "spm"
        if not pieces and (self.vocab_size is not None or self.spm_model is not None):
            raise UserError("--vocab-size and --spm-model belong to --unit spm; add that, or drop them")
        if pieces and (self.vocab_size is None) == (self.spm_model is None):
            raise UserError(
                "--unit spm takes either --vocab-size, to train pieces, or --spm-model, to use those of a file"
            )


def choose_units(labels: Labels, records: Sequence[Record]) -> Units | None:
    """The units; word pieces are trained here.

    Returns:
        None if that needs transcripts and there are unsound ones, which are then to be refused.

    Raises:
        UserError: if the pieces cannot be read or trained.
    """
    if labels.unit == LETTERS.name:
        return LETTERS
    from fairseq_skd.corpora.pieces import read_pieces, train_pieces

    if labels.spm_model is not None:
        return read_pieces(labels.spm_model)
    texts = [record.text for record in _training(labels, records)]
    if any(fault for record in records for fault in label_faults(record)):
        return None
    with working(f"training {labels.vocab_size} word pieces on {len(texts)} transcripts"):
        return train_pieces(texts, labels.vocab_size or 0)


def make_lexicon(labels: Labels, records: Sequence[Record], units: Units) -> dict[str, bytes]:
    """The lexicon as a file's name and content; nothing if none is asked for.

    Raises:
        UserError: if there is no split to take the words from, or the file of words is unfit.
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
    """The records of the splits that pieces and lexicon are made from."""
    there = list(dict.fromkeys(record.split for record in records))
    wanted = list(labels.train_split)
    if not wanted:  # LibriSpeech has train-clean-100 and no train
        wanted = ["train"] if "train" in there else [split for split in there if split.startswith("train")]
    missing = [split for split in wanted if split not in there]
    if missing or not wanted:
        mend = "name the splits with --train-split" + (", or give --spm-model" if labels.unit == "spm" else "")
        raise UserError(f"no split {missing[0] if missing else 'train'} among {', '.join(there)}; {mend}")
    return [record for record in records if record.split in wanted]
