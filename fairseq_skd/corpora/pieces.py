"""Word pieces as units: a SentencePiece model, trained on transcripts or given, and its dictionary for fairseq."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError
from fairseq_skd.files.units import ALPHABET

MODEL = "spm.model"
WORD_BEGIN = "▁"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq's dictionary has them already


class Pieces:
    """The pieces of a SentencePiece model, ``▁`` at the beginning of each word.

    fairseq puts ``<s>`` (CTC's blank, output 0), ``<pad>``, ``</s>`` and ``<unk>`` before a dictionary's symbols, so
    the model's own ``<unk>`` and its kin are left out of ``dict.spm.txt``: piece i of those left is output 4 + i.

    Args:
        content: the bytes of the model.
        origin: names it in messages.

    Raises:
        UserError: if they are no model.
    """

    name = "spm"
    noun = "pieces"

    def __init__(self, content: bytes, origin: str) -> None:
        self.content, self.origin = content, origin
        self._model = sentencepiece().SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise UserError(f"{origin}: is no SentencePiece model; give the spm.model of the training data") from error
        numbers = range(self._model.get_piece_size())
        meta = {
            n for n in numbers if self._model.is_control(n) or self._model.is_unknown(n) or self._model.is_unused(n)
        }
        self.symbols = [self._model.id_to_piece(number) for number in numbers if number not in meta]
        self._known = frozenset(self.symbols)
        self._cache: dict[str, list[str]] = {}
        unfit = [symbol for symbol in self.symbols if len(symbol.split()) != 1 or symbol in _SPECIAL]
        if unfit:
            raise UserError(
                f"{origin}: has the piece {unfit[0]!r}, which fairseq's dictionary cannot hold; train another"
            )

    def split(self, text: str) -> list[str]:
        """The pieces of a transcript.

        >>> pieces.split("GO ON")  # doctest: +SKIP
        ['▁GO', '▁O', 'N']
        """
        if text not in self._cache:
            self._cache[text] = self._model.encode(text, out_type=str)
        return self._cache[text]

    def count(self, text: str) -> int:
        """The pieces."""
        return len(self.split(text))

    def missing(self, text: str) -> str:
        """What of a transcript its pieces do not tell: characters without one, or text that the model rewrites."""
        pieces = self.split(text)
        unknown = [piece for piece in pieces if piece not in self._known]
        if unknown:
            return f"{self.origin} has no piece for {' '.join(dict.fromkeys(unknown))}"
        spelt = "".join(pieces).replace(WORD_BEGIN, " ").strip()  # as fairseq's post_process=sentencepiece does
        return "" if spelt == text else f"{self.origin} makes {spelt!r} of it"

    def files(self) -> dict[str, bytes]:
        """``dict.spm.txt`` (counts serve nothing, so they are 1) and ``spm.model``."""
        dictionary = "".join(f"{symbol} 1\n" for symbol in self.symbols)
        return {"dict.spm.txt": dictionary.encode(), MODEL: self.content}


def sentencepiece() -> Any:
    """The library, imported when it is needed.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import sentencepiece as library
    except ImportError as error:
        raise UserError("--unit spm needs sentencepiece: pip install sentencepiece") from error
    return library


def read_pieces(path: Path) -> Pieces:
    """The pieces of a model file.

    Raises:
        UserError: if it cannot be read or is no model.
    """
    try:
        return Pieces(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def train_pieces(texts: Sequence[str], size: int) -> Pieces:
    """Train a unigram model; the same texts always give the same bytes.

    Args:
        texts: transcripts, A-Z, apostrophe and spaces; each of these characters is a piece, whether it occurs or not,
            so that every transcript can be written.
        size: pieces, which are the lines of ``dict.spm.txt``.

    Raises:
        UserError: if the texts do not yield so many pieces, or so few.
    """
    written = io.BytesIO()
    try:
        sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            model_type="unigram",
            vocab_size=size + 1,  # its own <unk>, which cannot be done without
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            character_coverage=1.0,
            required_chars="".join(sorted(ALPHABET - {" "})),
            normalization_rule_name="identity",
            max_sentence_length=1_000_000,  # bytes; longer ones would be left out without a word
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        message = str(error)
        if most := re.search(r"Vocabulary size too high.*<= (\d+)", message):
            limit = f"at most {int(most.group(1)) - 1}; lower it, or train on more text"
        elif least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            limit = f"at least {int(least.group(1)) - 1}, a piece for each character"
        else:
            raise UserError(f"--unit spm: SentencePiece cannot train on the transcripts: {message}") from error
        raise UserError(f"--vocab-size {size}: the transcripts allow {limit}") from error
    return Pieces(written.getvalue(), MODEL)
