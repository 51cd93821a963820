"""Check the settings of a search, build it, and describe it in the summary."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_skd.decoding.config import DecodingSettings
from fairseq_skd.files.disk import absolute
from fairseq_skd.search.beam import BeamSearch
from fairseq_skd.search.greedy import Hypothesis, greedy
from fairseq_skd.search.language_model import check_language_model, flashlight
from fairseq_skd.search.lexicon import Coverage, Lexicon, coverage, read_lexicon
from fairseq_skd.search.phrases import Phrases, read_phrases

Searcher = Callable[[Tensor, Tensor], list[Hypothesis]]  # (T, B, V) logits and (B,) frames


def weigh_blank(search: Searcher, weight: float, blank: int) -> Searcher:
    """Return the search with ``weight`` added to the logit of blank on every frame."""

    def weighed(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        change = torch.zeros_like(logits[0, 0])
        change[blank] = weight
        return search(logits + change, lengths)

    return weighed if weight else search


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """A search with checked inputs; the language model is loaded only by :meth:`build`.

    Attributes:
        settings: the keys.
        lmpath: path of the language model; None without one.
        lexicon: the lexicon; None without one.
        outside: count of reference words that are not in the lexicon; None without a lexicon.
        phrases: phrases to prefer; None without them.
    """

    settings: DecodingSettings
    lmpath: Path | None = None
    lexicon: Lexicon | None = None
    outside: Coverage | None = None
    phrases: Phrases | None = None

    def build(self, dictionary: Dictionary) -> Searcher:
        """Build the search and load its language model.

        Raises:
            UserError: the language model cannot be used.
        """
        blank, search = dictionary.bos(), greedy
        if self.settings.type != "viterbi":
            options = self.settings.options
            search = BeamSearch(dictionary.symbols, blank, options, self.lmpath, self.lexicon, self.phrases)
        return weigh_blank(search, self.settings.blankweight, blank)

    @property
    def empty(self) -> str:
        """The message for a decode in which every hypothesis is empty."""
        if self.settings.type == "viterbi":
            return (
                "every hypothesis is empty: the model outputs only blanks. Train it longer; a negative "
                "decoding.blankweight shows its second choice"
            )
        return (
            "every hypothesis is empty: train the model longer, lower decoding.lmweight or decoding.blankweight, or "
            "raise decoding.wordscore"
        )

    def summary(self) -> dict[str, Any]:
        """Describe the search for ``summary.json``."""
        found: dict[str, Any] = {"search": self.settings.type, "blankweight": self.settings.blankweight}
        if self.settings.type == "viterbi":
            return found
        found["lmpath"] = str(self.lmpath) if self.lmpath is not None else None
        options = dataclasses.asdict(self.settings.options)
        if self.lexicon is not None and self.outside is not None:
            found["lexicon"] = str(self.lexicon.path)
            found["oov_words"], found["oov_distinct"] = self.outside.missing, self.outside.distinct
        else:  # weights of words do nothing without a lexicon
            options = {key: value for key, value in options.items() if key not in ("wordscore", "unkweight")}
        if self.phrases is not None:
            found |= self.phrases.summary()
        return found | {key: "-inf" if value == -math.inf else value for key, value in options.items()}


def plan_search(
    settings: DecodingSettings, dictionary: Dictionary, process: str, references: Sequence[str]
) -> SearchPlan:
    """Check the files of a search.

    Args:
        settings: checked keys.
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.
        references: words of the subset, one text per utterance. A warning on stderr counts those
            outside the lexicon.

    Raises:
        UserError: flashlight-text is not installed, or a file cannot be used.
    """
    if settings.type == "viterbi":
        return SearchPlan(settings)
    flashlight()
    lmpath = absolute(settings.lmpath) if settings.lmpath else None
    if lmpath is not None:
        check_language_model(lmpath)
    symbols, specials = dictionary.symbols, dictionary.nspecial
    lexicon = read_lexicon(absolute(settings.lexicon), symbols, specials) if settings.lexicon else None
    phrases = None
    if settings.phrases:
        path = absolute(settings.phrases)
        phrases = read_phrases(path, settings.phraseweight, symbols, specials, process, lexicon)
    if lexicon is None:
        return SearchPlan(settings, lmpath, phrases=phrases)
    if phrases is not None:
        lexicon = phrases.with_words(lexicon)
    outside = coverage(lexicon, references)
    if outside.missing:
        print(
            f"{outside.missing} of the {outside.words} words in the references ({outside.distinct} distinct) are not "
            f"in the lexicon: they cannot be recognized",
            file=sys.stderr,
        )
    return SearchPlan(settings, lmpath, lexicon, outside, phrases)
