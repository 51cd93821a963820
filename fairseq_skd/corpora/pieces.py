"""Word pieces as units: a SentencePiece model, trained or given, and its fairseq dictionary."""

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError
from fairseq_skd.files.units import WORD_MARK

MODEL = "spm.model"
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq's dictionary has them already


class Pieces:
    """The pieces of a SentencePiece model; ``▁`` begins each word.

    fairseq puts ``<s>`` (CTC's blank, output 0), ``<pad>``, ``</s>`` and ``<unk>`` before a
    dictionary's symbols. So ``dict.spm.txt`` leaves out the model's own ``<unk>`` and other special
    symbols: its piece i is output 4 + i.

    Args:
        content: the bytes of the model.
        origin: name of the model in messages.

    Raises:
        UserError: the bytes are not a SentencePiece model, or fairseq cannot read its pieces.
    """

    name = "spm"
    noun = "pieces"
    notes: Sequence[str] = ()
    spells = True
    lacking = "the pieces lack it: correct the text, or train pieces on text that has it"

    def __init__(self, content: bytes, origin: str) -> None:
        self.content, self.origin = content, origin
        self._model = sentencepiece().SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise UserError(
                f"{origin}: is not a SentencePiece model; give the spm.model of the training data"
            ) from error
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
                f"{origin}: has the piece {unfit[0]!r}, which fairseq's dictionary cannot hold; train another model"
            )

    def split(self, text: str) -> list[str]:
        """Spell a transcript in pieces.

        >>> pieces.split("GO ON")  # doctest: +SKIP
        ['▁GO', '▁O', 'N']
        """
        if text not in self._cache:
            self._cache[text] = self._model.encode(text, out_type=str)
        return self._cache[text]

    def count(self, text: str) -> int:
        """Count the pieces."""
        return len(self.split(text))

    def outside(self, text: str) -> list[str]:
        """List the characters that have no piece, each as often as it occurs."""
        return [character for piece in self.split(text) if piece not in self._known for character in piece]

    def missing(self, text: str) -> str:
        """Say what the model turns the text into, if not into the same text; else empty."""
        spelt = "".join(self.split(text)).replace(WORD_MARK, " ").strip()  # as fairseq's post_process=sentencepiece
        return "" if spelt == text else f"{self.origin} turns it into {spelt!r}"

    def files(self) -> dict[str, bytes]:
        """Return ``dict.spm.txt`` (all counts are 1, since nothing uses them) and ``spm.model``."""
        dictionary = "".join(f"{symbol} 1\n" for symbol in self.symbols)
        return {"dict.spm.txt": dictionary.encode(), MODEL: self.content}


def sentencepiece() -> Any:
    """Import the library.

    Raises:
        UserError: sentencepiece is not installed.
    """
    try:
        import sentencepiece as library
    except ImportError as error:
        raise UserError("--unit spm needs sentencepiece: pip install sentencepiece") from error
    return library


def read_pieces(path: Path) -> Pieces:
    """Read the pieces of a model file.

    Raises:
        UserError: the file cannot be read or is not a SentencePiece model.
    """
    try:
        return Pieces(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def train_pieces(texts: Sequence[str], size: int, alphabet: Iterable[str]) -> Pieces:
    """Train a unigram model; the same texts always give the same bytes.

    Args:
        texts: transcripts in NFC.
        alphabet: characters of the transcripts. Each is a piece, even if it does not occur in
            ``texts``, so that the pieces can spell every transcript.
        size: number of pieces, which is the number of lines of ``dict.spm.txt``.

    Raises:
        UserError: the texts allow only fewer pieces, or ``size`` is less than one per letter.
    """
    written = io.BytesIO()
    try:
        sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            model_type="unigram",
            vocab_size=size + 1,  # with the model's own <unk>, which it must have
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            character_coverage=1.0,
            required_chars="".join(sorted(set(alphabet) - {" "})),
            normalization_rule_name="identity",
            max_sentence_length=1_000_000,  # bytes; longer texts would be left out silently
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        message = str(error)
        if most := re.search(r"Vocabulary size too high.*<= (\d+)", message):
            limit = f"at most {int(most.group(1)) - 1}; lower it, or train on more text"
        elif least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            limit = f"at least {int(least.group(1)) - 1}, one piece per character"
        else:
            raise UserError(f"--unit spm: SentencePiece cannot train on the transcripts: {message}") from error
        raise UserError(f"--vocab-size {size}: the transcripts allow {limit}") from error
    return Pieces(written.getvalue(), MODEL)
