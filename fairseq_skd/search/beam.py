"""Beam search over CTC posteriors by flashlight-text, with or without lexicon and n-gram model.

The score of a hypothesis is ``log p_ctc + lmweight * log10 p_lm + wordscore * words + silweight *
frames of silence``. p_ctc is the probability of its best alignment, or with ``logadd`` the sum over
all alignments. Phrases add their bonuses, see :mod:`~fairseq_skd.search.phrases`.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_skd.errors import UserError
from fairseq_skd.search.automaton import boosted
from fairseq_skd.search.greedy import Hypothesis
from fairseq_skd.search.language_model import UNKNOWN, flashlight, load_language_model, unknown_entries
from fairseq_skd.search.lexicon import Lexicon, boundary_of
from fairseq_skd.search.phrases import Phrases

Spelling = tuple[int, ...]
_PHRASE_UNITS = 16  # best units tried per frame with phrases: each costs a call of Python per hypothesis


class Scored(NamedTuple):
    """A hypothesis and its score."""

    hypothesis: Hypothesis
    score: float


@dataclass(frozen=True)
class BeamOptions:
    """Beam width and weights, with the names of fairseq's decoders."""

    beam: int = 50  # hypotheses kept after each frame
    beamsizetoken: int | None = None  # best units tried per frame; None: all, with phrases but no lexicon 16
    beamthreshold: float = 50.0  # drop hypotheses whose score is lower than the best by more
    lmweight: float = 2.0
    wordscore: float = -1.0  # added per word (with a lexicon)
    unkweight: float = -math.inf  # added per word outside the lexicon; -inf: no such words
    silweight: float = 0.0  # added per frame of the word boundary
    logadd: bool = False  # sum over the alignments of a text instead of taking the best

    def check(self, prefix: str) -> None:
        """Check for values out of range; ``prefix`` comes before the key in messages.

        Raises:
            UserError: a value is out of range.
        """
        for key, value, least in (("beam", self.beam, 1), ("beamsizetoken", self.beamsizetoken, 1)):
            if value is not None and value < least:
                raise UserError(f"{prefix}{key}={value} is out of range: set it to at least {least}")
        if not self.beamthreshold > 0:
            raise UserError(f"{prefix}beamthreshold={self.beamthreshold} is out of range: set it to a positive number")
        for key in ("lmweight", "wordscore", "silweight"):
            if not math.isfinite(getattr(self, key)):
                raise UserError(f"{prefix}{key}={getattr(self, key)} is not finite: set it to a number")
        if math.isnan(self.unkweight) or self.unkweight == math.inf:
            raise UserError(f"{prefix}unkweight={self.unkweight} cannot be used: set it to a number or -inf")


class BeamSearch:
    """Beam search with a loaded language model and lexicon.

    The search is deterministic, runs on the CPU and has no parameters. It pickles as its arguments.

    Args:
        symbols: symbols of the dictionary, by index.
        blank: index of the blank.
        options: width and weights.
        lmpath: language model, of words with a lexicon and of units without; None: no language
            model.
        lexicon: words to choose from; None: search over units.
        phrases: phrases to prefer; their words are in the lexicon. None: none.

    Raises:
        UserError: flashlight-text is missing, the model cannot be used, or ``logadd`` is set with a
            lexicon and a dictionary without word boundary.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        blank: int,
        options: BeamOptions,
        lmpath: Path | None,
        lexicon: Lexicon | None,
        phrases: Phrases | None = None,
    ) -> None:
        self._arguments = (list(symbols), blank, options, lmpath, lexicon, phrases)
        self.blank = blank
        self.options = options
        self.lexicon = lexicon
        boundary = boundary_of(symbols)
        self.units = len(symbols)
        # Columns after the units, for dictionaries without a word boundary: a silence of
        # probability 0 and, with a lexicon, second names of blank and units (see _spellings).
        self.silence = symbols.index(boundary) if boundary is not None else self.units
        self.renamed = lexicon is not None and boundary is None
        self.columns = 2 * self.units + 2 if self.renamed else self.units + 1
        if self.renamed and options.logadd:
            raise UserError(
                "logadd=true with a lexicon needs a dictionary with |, else alignments count twice: set logadd=false"
            )
        # Without a lexicon, the search looks up units by index, including the silence.
        entries = [*symbols, UNKNOWN, "<silence>"] if lexicon is None else [*lexicon.words, UNKNOWN]
        self.vocabulary = list(dict.fromkeys(entries))
        model = load_language_model(lmpath, self.vocabulary) if lmpath is not None else flashlight().ZeroLM()
        if lexicon is None:
            self._check_units(model, lmpath)
        else:
            self._check_words(model, lmpath, lexicon)
        if phrases is not None and phrases.scale == 0:
            phrases = None
        self.phrases = phrases
        self._model, self._lmweight = model, options.lmweight  # the decoder keeps no model in Python alive
        bonuses: dict[str, float] = {}
        if phrases is not None:
            automaton = phrases.over_units(self.vocabulary) if lexicon is None else phrases.over_words(self.vocabulary)
            self._model, self._lmweight = boosted(model, options.lmweight, automaton), 1.0
            bonuses = automaton.reach
        self._decoder = self._free_decoder() if lexicon is None else self._lexicon_decoder(model, lexicon, bonuses)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __call__(self, logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Search a batch.

        Args:
            logits: (T, B, V) logits.
            lengths: (B,) number of frames of each utterance; frames after them are ignored.

        Returns:
            the best hypothesis of each utterance.
        """
        log_probs = torch.log_softmax(logits.float(), dim=-1).cpu().transpose(0, 1)  # (T, B, V) -> (B, T, V)
        return [self.search(frames[:length]) for frames, length in zip(log_probs, lengths.tolist(), strict=True)]

    def search(self, log_probs: Tensor) -> Hypothesis:
        """Find the best hypothesis of one utterance from its (T, V) log posteriors."""
        return next(self.ranked(log_probs)).hypothesis

    def ranked(self, log_probs: Tensor) -> Iterator[Scored]:
        """Yield the hypotheses of one utterance from its (T, V) log posteriors, best first.

        Several of them may have the same text.
        """
        emissions = self._emissions(log_probs)
        found = self._decoder.decode(emissions.data_ptr(), *emissions.shape)
        scored = (Scored(self._hypothesis(result), result.score) for result in found)
        best = next(scored)
        spelt = filter(lambda one: self._spelt(one.hypothesis), itertools.chain([best], scored))
        yield next(spelt, best)
        yield from spelt

    def _emissions(self, log_probs: Tensor) -> Tensor:
        """Extend (T, V) log posteriors to the (T + 2, columns) input of the search.

        A blank frame at each end changes neither texts nor scores. The search begins in silence:
        the first blank lets it find a boundary at the beginning of the audio. The last blank lets
        the last word end in a blank.
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
        """Map a column of the emissions to its unit; second names have the unit that they name."""
        if column <= self.units:
            return column
        return self.blank if column == self.units + 1 else column - self.units - 2

    def _spellings(self, units: Spelling) -> list[Spelling]:
        """Return the spellings to put into the trie for one spelling of a word.

        After a word, the search allows silence, a blank or the next word, but not the word's last
        unit again. With letters, that unit is the silence itself. But a word piece or phone may
        last several frames, and the search would lose the word. So two more spellings end in a
        second name: of the blank, for a word that a blank follows; and of the last unit, for a unit
        that lasts. A unit has its second name only after a frame that is not blank, because a unit
        that returns after a blank is a new unit.
        """
        if not self.renamed:
            return [units]
        return [units, (*units, self.units + 1), (*units, self.units + 2 + units[-1])]

    def _spelt(self, found: Hypothesis) -> bool:
        """Tell whether the units spell the words.

        At the end of a word, the search forgets that CTC needs a blank between two equal units. So
        a path may win whose units spell other words.
        """
        if self.lexicon is None or found.words is None or UNKNOWN in found.words:
            return True
        return self.lexicon.spans(found.words, found.units, self.silence) is not None

    def _check_words(self, model: Any, lmpath: Path | None, lexicon: Lexicon) -> None:
        words = list(lexicon.words)
        if lmpath is not None and len(unknown_entries(model, self.vocabulary, words)) == len(words):
            raise UserError(
                f"language model {lmpath} knows no word of lexicon {lexicon.path}: use the same words and case in both"
            )

    def _lexicon_decoder(self, model: Any, lexicon: Lexicon, bonuses: Mapping[str, float]) -> Any:
        module = flashlight()
        trie = module.Trie(self.columns, self.silence)
        start = model.start(False)
        labels = {word: label for label, word in enumerate(self.vocabulary)}
        for word, spellings in lexicon.words.items():
            # Look-ahead inside the word: a unigram score, and the bonus that the word may get.
            score = model.score(start, labels[word])[1]
            if self.phrases is not None:
                score = self.options.lmweight * score + bonuses.get(word, 0.0)
            for units in spellings:
                for spelling in self._spellings(units):
                    trie.insert(list(spelling), labels[word], score)
        trie.smear(module.SmearingMode.MAX)
        options = module.LexiconDecoderOptions(
            **self._shared_options(), word_score=self.options.wordscore, unk_score=self.options.unkweight
        )
        return module.LexiconDecoder(options, trie, self._model, self.silence, self.blank, labels[UNKNOWN], [], False)

    def _check_units(self, model: Any, lmpath: Path | None) -> None:
        units = [unit for unit in self.vocabulary if not unit.startswith("<")]
        unknown = unknown_entries(model, self.vocabulary, units) if lmpath is not None else []
        if 2 * len(unknown) > len(units):
            raise UserError(
                f"language model {lmpath} knows {len(units) - len(unknown)} of the {len(units)} units of the "
                f"dictionary: without a lexicon, give a model of units, not of words"
            )

    def _free_decoder(self) -> Any:
        module = flashlight()
        options = module.LexiconFreeDecoderOptions(**self._shared_options())
        return module.LexiconFreeDecoder(options, self._model, self.silence, self.blank, [])

    def _shared_options(self) -> dict[str, Any]:
        every = _PHRASE_UNITS if self.phrases is not None and self.lexicon is None else self.columns
        tried = (self.options.beamsizetoken or every) * (2 if self.renamed else 1)
        return {
            "beam_size": self.options.beam,
            "beam_size_token": min(tried, self.columns),
            "beam_threshold": self.options.beamthreshold,
            "lm_weight": self._lmweight,
            "sil_score": self.options.silweight,
            "log_add": self.options.logadd,
            "criterion_type": flashlight().CriterionType.CTC,
        }
