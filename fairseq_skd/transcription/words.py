"""Words with start, end and confidence, from the CTC spikes of their units.

**Times.** Frame t stands for the samples from ``t * step`` up to ``(t + 1) * step``, where ``step``
is the number of samples from one frame to the next (320 at 16 kHz: 20 ms). These are the first
samples that its convolutions see. A word starts with the first frame of its first spike and ends
with the last frame of its last spike. CTC spikes are short, so words look shorter than they sound.

**Confidence.** A word's confidence is the geometric mean of the posteriors at the peaks of its
spikes, from 0 to 1. The confidence of a transcript is the geometric mean over its words; it is 0 if
there are none.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process

from fairseq_skd.search.forced import Alignment

Span = tuple[int, int]  # (first, one past the last) unit of a word
# What fairseq's post_process replaces in the symbols that spaces join, in this order.
_LETTERS = (" ", "")
_REPLACED: dict[str, tuple[tuple[str, str], ...]] = {
    "letter": (_LETTERS, ("|", " ")),
    "sentencepiece": (_LETTERS, ("\u2581", " ")),
    "wordpiece": (_LETTERS, ("_", " ")),
    "_EOW": (_LETTERS, ("_EOW", " ")),
    "silence": (("<SIL>", ""),),
    "subword_nmt": (("@@ ", ""),),
    "@@ ": (("@@ ", ""),),
    "@@": (("@@", ""),),
    "none": (),
}


@dataclass(frozen=True)
class Word:
    """One word in time.

    Attributes:
        text: the word.
        start: in seconds.
        end: in seconds.
        confidence: from 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said in one audio file. ``str()`` of it is the text.

    Attributes:
        text: the text.
        words: its words, in time order; they do not overlap.
        confidence: from 0 to 1; 0 for an empty text.
        seconds: duration of the audio.
        score: of the search: log probability of the best path, with a language model the score of
            the beam search.
        nbest: the next best transcripts, best first; empty if none were asked for.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    seconds: float
    score: float
    nbest: tuple["Transcript", ...] = ()

    def __str__(self) -> str:
        return self.text


class Spelt(NamedTuple):
    """A text and its words in units.

    Attributes:
        text: exactly the text of fairseq's ``post_process``.
        words: the words of the text.
        spans: the units of each word; units that only separate words, such as ``|``, are outside.
    """

    text: str
    words: list[str]
    spans: list[Span]


def spell(units: Sequence[int], dictionary: Dictionary, process: str) -> Spelt:
    """Join units into words, and remember which units each word has.

    Args:
        units: indices in ``dictionary``, without blanks.
        dictionary: dictionary of the labels.
        process: how units become words, one of fairseq's ``post_process`` names.
    """
    # The characters of the sentence that post_process gets, and the unit of each.
    characters: list[str] = []
    owners: list[int] = []
    for place, unit in enumerate(units):
        symbol = dictionary.string([unit])  # empty for </s>, which fairseq leaves out
        if symbol:
            if characters:
                characters.append(" ")
                owners.append(-1)
            characters += symbol
            owners += [place] * len(symbol)
    sentence = "".join(characters)
    line = sentence + " "  # subword_nmt replaces the mark with the space after it
    owners.append(-1)
    for mark, sign in _REPLACED[process]:
        line, owners = _replace(line, owners, mark, sign)
    words, spans = [], []
    for match in re.finditer("[^ ]+", line):
        words.append(match[0])
        spans.append((owners[match.start()], owners[match.end() - 1] + 1))
    return Spelt(post_process(sentence, process), words, spans)


def _replace(line: str, owners: list[int], mark: str, sign: str) -> tuple[str, list[int]]:
    """Replace ``mark``; a sign in its place belongs to no unit."""
    kept: list[int] = []
    begin = 0
    for match in re.finditer(re.escape(mark), line):
        kept += owners[begin : match.start()]
        kept += [-1] * len(sign)
        begin = match.end()
    return line.replace(mark, sign), kept + owners[begin:]


def timed_words(words: Sequence[str], spans: Sequence[Span], found: Alignment, frame_seconds: float) -> list[Word]:
    """Give each word its times and confidence.

    Args:
        words: the words.
        spans: the units of each word, in time order.
        found: alignment of all units.
        frame_seconds: time from one frame to the next.
    """
    timed = []
    for word, (first, end) in zip(words, spans, strict=True):
        confidence = geometric_mean(found.heights[first:end])
        begins, ends = int(found.starts[first]), int(found.ends[end - 1])
        timed.append(Word(word, _seconds(begins, frame_seconds), _seconds(ends, frame_seconds), confidence))
    return timed


def _seconds(frame: int, frame_seconds: float) -> float:
    """Return the start of a frame, to the microsecond: 0.06 and not 0.06000000000000001."""
    return round(frame * frame_seconds, 6)


def geometric_mean(values: Iterable[float] | npt.NDArray[np.float64]) -> float:
    """Return the geometric mean; 0 if there are no values.

    >>> geometric_mean([0.9, 0.4])
    0.6
    """
    logs = np.log(np.maximum(np.fromiter(values, np.float64), 1e-300))
    return round(float(np.exp(logs.mean())), 6) if len(logs) else 0.0
