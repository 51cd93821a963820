"""Which search is run: what can be checked of it before time is spent, building it, and what the summary says of it."""

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

Searcher = Callable[[Tensor, Tensor], list[Hypothesis]]  # (T, B, V) logits and (B,) frames


def weigh_blank(search: Searcher, weight: float, blank: int) -> Searcher:
    """The search with ``weight`` added to the blank's logit on every frame."""

    def weighed(logits: Tensor, lengths: Tensor) -> list[Hypothesis]:
        change = torch.zeros_like(logits[0, 0])
        change[blank] = weight
        return search(logits + change, lengths)

    return weighed if weight else search


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """A search whose inputs were checked, all but the inside of the language model.

    Attributes:
        settings: the keys.
        lmpath: language model, None for greedy search and for none.
        lexicon: None without one.
        outside: of the references' words, those that the lexicon lacks.
    """

    settings: DecodingSettings
    lmpath: Path | None = None
    lexicon: Lexicon | None = None
    outside: Coverage | None = None

    def build(self, dictionary: Dictionary) -> Searcher:
        """The search, its language model loaded.

        Raises:
            UserError: a language model that cannot be used.
        """
        blank, search = dictionary.bos(), greedy
        if self.settings.type != "viterbi":
            search = BeamSearch(dictionary.symbols, blank, self.settings.options, self.lmpath, self.lexicon)
        return weigh_blank(search, self.settings.blankweight, blank)

    @property
    def empty(self) -> str:
        """What to say where nothing at all was recognised."""
        if self.settings.type == "viterbi":
            return (
                "every hypothesis is empty: the model outputs only blanks, it is not trained far enough; a negative "
                "decoding.blankweight shows what it would say next"
            )
        return (
            "every hypothesis is empty: the model is not trained far enough, or decoding.lmweight is too high or "
            "decoding.wordscore too low for it, or decoding.blankweight is too high"
        )

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of the search."""
        found: dict[str, Any] = {"search": self.settings.type, "blankweight": self.settings.blankweight}
        if self.settings.type == "viterbi":
            return found
        found["lmpath"] = str(self.lmpath) if self.lmpath is not None else None
        options = dataclasses.asdict(self.settings.options)
        if self.lexicon is not None and self.outside is not None:
            found["lexicon"] = str(self.lexicon.path)
            found["oov_words"], found["oov_distinct"] = self.outside.missing, self.outside.distinct
        else:  # weights of words that there are none of
            options = {key: value for key, value in options.items() if key not in ("wordscore", "unkweight")}
        return found | {key: "-inf" if value == -math.inf else value for key, value in options.items()}


def plan_search(settings: DecodingSettings, dictionary: Dictionary, references: Sequence[str]) -> SearchPlan:
    """Check a search.

    Args:
        settings: checked keys.
        dictionary: of the labels.
        references: words of the subset, one entry per utterance; how many the lexicon lacks goes to stderr.

    Raises:
        UserError: flashlight-text is missing, or a file that cannot be used.
    """
    if settings.type == "viterbi":
        return SearchPlan(settings)
    flashlight()
    lmpath = absolute(settings.lmpath) if settings.lmpath else None
    if lmpath is not None:
        check_language_model(lmpath)
    if not settings.lexicon:
        return SearchPlan(settings, lmpath)
    lexicon = read_lexicon(absolute(settings.lexicon), dictionary.symbols, dictionary.nspecial)
    outside = coverage(lexicon, references)
    if outside.missing:
        print(
            f"{outside.missing} of the references' {outside.words} words ({outside.distinct} different ones) are not "
            f"in the lexicon: they cannot be recognised",
            file=sys.stderr,
        )
    return SearchPlan(settings, lmpath, lexicon, outside)
