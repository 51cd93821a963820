"""Beam search over CTC posteriors, with a lexicon and an n-gram model or over units alone; it is flashlight-text's.

A hypothesis scores ``log p_ctc + lmweight * log10 p_lm + wordscore * words + silweight * frames of silence``, where
p_ctc is the probability of its best alignment, or of all of them with ``logadd``.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_skd.errors import UserError
from fairseq_skd.search.greedy import Hypothesis
from fairseq_skd.search.language_model import UNKNOWN, flashlight, load_language_model, unknown_entries
from fairseq_skd.search.lexicon import Lexicon, boundary_of

Spelling = tuple[int, ...]


@dataclass(frozen=True)
class BeamOptions:
    """Width and weights, under the names of fairseq's decoders."""

    beam: int = 50  # hypotheses that are kept after each frame
    beamsizetoken: int | None = None  # best units of a frame that are tried; None: all
    beamthreshold: float = 50.0  # hypotheses that score less than the best one by more than this are dropped
    lmweight: float = 2.0
    wordscore: float = -1.0  # added for each word (lexicon)
    unkweight: float = -math.inf  # added for a word outside the lexicon; -inf: there are none
    silweight: float = 0.0  # added for each frame of the word boundary
    logadd: bool = False  # add up the alignments of a text instead of taking the best

    def check(self, prefix: str) -> None:
        """Refuse what cannot be meant; ``prefix`` stands before the key in the message."""
        for key, value, least in (("beam", self.beam, 1), ("beamsizetoken", self.beamsizetoken, 1)):
            if value is not None and value < least:
                raise UserError(f"{prefix}{key}={value} is out of range, it is at least {least}")
        if not self.beamthreshold > 0:
            raise UserError(f"{prefix}beamthreshold={self.beamthreshold} is out of range, it is positive")
        for key in ("lmweight", "wordscore", "silweight"):
            if not math.isfinite(getattr(self, key)):
                raise UserError(f"{prefix}{key}={getattr(self, key)} is not finite")
        if math.isnan(self.unkweight) or self.unkweight == math.inf:
            raise UserError(f"{prefix}unkweight={self.unkweight} cannot be used: it is a number, or -inf")


class BeamSearch:
    """The search, ready: the model is loaded, the lexicon is a trie.

    It is deterministic, works on the CPU and holds no parameters. It pickles as its arguments.

    Args:
        symbols: of the dictionary, by index.
        blank: index of the blank.
        options: width and weights.
        lmpath: language model, over words with a lexicon and over units without; None: none (without a lexicon only).
        lexicon: words to choose from.

    Raises:
        UserError: flashlight-text is missing, or the model cannot be used.
    """

    def __init__(
        self, symbols: Sequence[str], blank: int, options: BeamOptions, lmpath: Path | None, lexicon: Lexicon | None
    ) -> None:
        self._arguments = (list(symbols), blank, options, lmpath, lexicon)
        self.blank = blank
        self.options = options
        self.lexicon = lexicon
        boundary = boundary_of(symbols)
        self.units = len(symbols)
        # Columns beyond the units: a silence that no frame takes, for dictionaries without a boundary; and, where
        # such a dictionary spells words, second names of the blank and of each unit, see _spellings.
        self.silence = symbols.index(boundary) if boundary is not None else self.units
        self.renamed = lexicon is not None and boundary is None
        self.columns = 2 * self.units + 2 if self.renamed else self.units + 1
        if self.renamed and options.logadd:
            raise UserError("logadd=true with a lexicon takes a dictionary with |: alignments would be counted twice")
        # Without a lexicon units are looked up by index, the silence included.
        entries = [*symbols, UNKNOWN, "<silence>"] if lexicon is None else [*lexicon.words, UNKNOWN]
        self.vocabulary = list(dict.fromkeys(entries))
        model = load_language_model(lmpath, self.vocabulary) if lmpath is not None else flashlight().ZeroLM()
        if lexicon is None:
            self._decoder = self._free_decoder(model, lmpath)
        else:
            self._decoder = self._lexicon_decoder(model, lmpath, lexicon)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __call__(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Search a batch.

        Args:
            logits: (T, B, V).
            lengths: (B,), real frames of each utterance; frames beyond are not looked at.
        """
        log_probs = torch.log_softmax(logits.float(), dim=-1).cpu().transpose(0, 1)  # (T, B, V) -> (B, T, V)
        return [self.search(frames[:length]) for frames, length in zip(log_probs, lengths.tolist(), strict=True)]

    def search(self, log_probs: Tensor) -> Hypothesis:
        """The best hypothesis of one utterance, (T, V) log posteriors."""
        emissions = self._emissions(log_probs)
        found = map(self._hypothesis, self._decoder.decode(emissions.data_ptr(), *emissions.shape))
        best = next(found)
        return best if self._spelt(best) else next(filter(self._spelt, found), best)

    def _emissions(self, log_probs: Tensor) -> Tensor:
        """What the search reads: (T, V) log posteriors -> (T + 2, columns).

        A frame of blank before and after changes no text and no score. With the first, a boundary at the beginning of
        the audio is a unit like others (the search begins in silence); with the second, a last word can end in a blank.
        """
        emissions = torch.full((log_probs.size(0) + 2, self.columns), -math.inf)
        emissions[[0, -1], self.blank] = 0.0
        emissions[1:-1, : self.units] = log_probs
        if self.renamed:
            emissions[:, self.units + 1] = emissions[:, self.blank]
            held = torch.zeros(len(emissions), dtype=torch.bool)
            held[2:-1] = log_probs[:-1].argmax(dim=1) != self.blank
            emissions[held, self.units + 2 :] = emissions[held, : self.units]
        return emissions

    def _hypothesis(self, result: Any) -> Hypothesis:
        path = [self._unit(column) for column in result.tokens[1:-1]]  # the search begins and ends in silence
        units = [unit for unit, _ in itertools.groupby(path) if unit != self.blank]
        if self.lexicon is None:
            return Hypothesis(units, None)
        return Hypothesis(units, [self.vocabulary[label] for label in result.words if label >= 0])

    def _unit(self, column: int) -> int:
        if column <= self.units:
            return column
        return self.blank if column == self.units + 1 else column - self.units - 2

    def _spellings(self, units: Spelling) -> list[Spelling]:
        """How the search has to be told a spelling.

        After a word the search takes silence, a blank or the next word, but not the word's last unit again. Of letters
        the last is silence itself. But where a word piece or phone lasts, the word would be lost, so there are two more
        spellings: the blank that follows belongs to the word; or the unit's last frame does, by its second name. A
        second name is heard where the frame before is no blank, because a unit that comes again after a blank is
        another unit.
        """
        if not self.renamed:
            return [units]
        return [units, (*units, self.units + 1), (*units, self.units + 2 + units[-1])]

    def _spelt(self, found: Hypothesis) -> bool:
        """Whether the units spell the words.

        At the end of a word the search forgets that CTC wants a blank between two of a kind, so that now and then a
        path wins that says something else.
        """
        if self.lexicon is None or found.words is None or UNKNOWN in found.words:
            return True
        ends = {0}
        for word in found.words:
            begins = {begin for end in ends for begin in self._after_silence(found.units, end)}
            ends = {
                begin + len(units)
                for begin in begins
                for units in self.lexicon.words[word]
                if tuple(found.units[begin : begin + len(units)]) == units
            }
        return any(len(found.units) in self._after_silence(found.units, end) for end in ends)

    def _after_silence(self, units: Sequence[int], begin: int) -> Iterator[int]:
        yield begin
        while begin < len(units) and units[begin] == self.silence:
            begin += 1
            yield begin

    def _lexicon_decoder(self, model: Any, lmpath: Path | None, lexicon: Lexicon) -> Any:
        words = list(lexicon.words)
        if lmpath is not None and len(unknown_entries(model, self.vocabulary, words)) == len(words):
            raise UserError(f"language model {lmpath} knows no word of lexicon {lexicon.path}: do they differ in case?")
        module = flashlight()
        trie = module.Trie(self.columns, self.silence)
        start = model.start(False)
        labels = {word: label for label, word in enumerate(self.vocabulary)}
        for word, spellings in lexicon.words.items():
            score = model.score(start, labels[word])[1]  # of the word alone: what the search hopes for within it
            for units in spellings:
                for spelling in self._spellings(units):
                    trie.insert(list(spelling), labels[word], score)
        trie.smear(module.SmearingMode.MAX)
        options = module.LexiconDecoderOptions(
            **self._shared_options(), word_score=self.options.wordscore, unk_score=self.options.unkweight
        )
        return module.LexiconDecoder(options, trie, model, self.silence, self.blank, labels[UNKNOWN], [], False)

    def _free_decoder(self, model: Any, lmpath: Path | None) -> Any:
        units = [unit for unit in self.vocabulary if not unit.startswith("<")]
        unknown = unknown_entries(model, self.vocabulary, units) if lmpath is not None else []
        if 2 * len(unknown) > len(units):
            raise UserError(
                f"language model {lmpath} knows {len(units) - len(unknown)} of the {len(units)} units of the "
                f"dictionary: without a lexicon it has to be a model of units, not of words"
            )
        module = flashlight()
        options = module.LexiconFreeDecoderOptions(**self._shared_options())
        return module.LexiconFreeDecoder(options, model, self.silence, self.blank, [])

    def _shared_options(self) -> dict[str, Any]:
        tried = (self.options.beamsizetoken or self.columns) * (2 if self.renamed else 1)
        return {
            "beam_size": self.options.beam,
            "beam_size_token": min(tried, self.columns),
            "beam_threshold": self.options.beamthreshold,
            "lm_weight": self.options.lmweight,
            "sil_score": self.options.silweight,
            "log_add": self.options.logadd,
            "criterion_type": flashlight().CriterionType.CTC,
        }
