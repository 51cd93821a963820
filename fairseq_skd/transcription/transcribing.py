"""Transcribe audio of any length, and align known texts: log-probs of stretches to transcripts."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from fairseq.data import Dictionary

from fairseq_skd.encoders.convolutions import FrameGrid
from fairseq_skd.errors import UserError
from fairseq_skd.files.stream import read_blocks
from fairseq_skd.files.waveforms import Audio, Waveforms
from fairseq_skd.search.beam import BeamSearch
from fairseq_skd.search.forced import Alignment, align_units
from fairseq_skd.search.greedy import Hypothesis, greedy_units
from fairseq_skd.search.lexicon import Lexicon, boundary_of
from fairseq_skd.transcription.texts import units_of_text
from fairseq_skd.transcription.windows import Run, Stretch, stretches
from fairseq_skd.transcription.words import Span, Transcript, geometric_mean, spell, timed_words

Floats = npt.NDArray[np.float32]
Unreadable = Callable[[int, UserError], None]  # index of the audio, why it has no transcript


class Aligned(NamedTuple):
    """A hypothesis on the frames of its file.

    Attributes:
        units: indices of the units.
        found: their spikes; frames count from the beginning of the file.
        words: words of a lexicon with their units; None: the words follow from the units.
    """

    units: list[int]
    found: Alignment
    words: list[tuple[str, Span]] | None

    def joined(self, other: "Aligned") -> "Aligned":
        """Append the hypothesis of the next stretch."""
        one, two, units = self.found, other.found, other.units
        if self.units and units and self.units[-1] == units[0] and one.ends[-1] == two.starts[0]:
            one, two, units = _join_spike(one, two, units)  # the cut was inside it
        found = Alignment(
            np.concatenate([one.starts, two.starts]),
            np.concatenate([one.ends, two.ends]),
            np.concatenate([one.peaks, two.peaks]),
            np.concatenate([one.heights, two.heights]),
            np.concatenate([one.means, two.means]),
            one.score + two.score,
        )
        words = None
        if self.words is not None and other.words is not None:
            dropped = len(other.units) - len(units)
            moved = [
                (word, (a + len(self.units) - dropped, b + len(self.units) - dropped)) for word, (a, b) in other.words
            ]
            words = self.words + moved
        return Aligned(self.units + units, found, words)

    def transcript(self, dictionary: Dictionary, process: str, frame_seconds: float, seconds: float) -> Transcript:
        """Turn units or words into a transcript with times.

        Args:
            dictionary: dictionary of the labels.
            process: how units become words, one of fairseq's ``post_process`` names.
            frame_seconds: time from one frame to the next.
            seconds: duration of the audio.
        """
        if self.words is None:
            text, words, spans = spell(self.units, dictionary, process)
        else:
            words, spans = [word for word, _ in self.words], [span for _, span in self.words]
            text = " ".join(words)
        timed = timed_words(words, spans, self.found, frame_seconds)
        confidence = geometric_mean(word.confidence for word in timed)
        return Transcript(text, tuple(timed), confidence, seconds, round(self.found.score, 6))


def _join_spike(one: Alignment, two: Alignment, units: list[int]) -> tuple[Alignment, Alignment, list[int]]:
    """Give the last spike of ``one`` the frames of the first spike of ``two``."""
    sizes = one.ends[-1] - one.starts[-1], two.ends[0] - two.starts[0]
    ends, peaks, heights, means = one.ends.copy(), one.peaks.copy(), one.heights.copy(), one.means.copy()
    ends[-1] = two.ends[0]
    if two.heights[0] > heights[-1]:
        peaks[-1], heights[-1] = two.peaks[0], two.heights[0]
    means[-1] = (sizes[0] * means[-1] + sizes[1] * two.means[0]) / sum(sizes)
    rest = Alignment(two.starts[1:], two.ends[1:], two.peaks[1:], two.heights[1:], two.means[1:], two.score)
    return Alignment(one.starts, ends, peaks, heights, means, one.score), rest, units[1:]


@dataclass(frozen=True)
class Transcriber:
    """What turns audio into transcripts.

    Attributes:
        run: windows of audio, not yet scaled, to log-probs.
        waveforms: sampling rate, and the shortest audio.
        grid: the encoder's frames.
        dictionary: dictionary of the labels.
        post_process: how units become words.
        search: beam search; None: greedy.
        nbest: transcripts per audio.
    """

    run: Run
    waveforms: Waveforms
    grid: FrameGrid
    dictionary: Dictionary
    post_process: str
    search: BeamSearch | None = None
    nbest: int = 1

    def transcribe(
        self, audio: Iterable[Audio], batch_size: int = 8, unreadable: Unreadable | None = None
    ) -> Iterator[tuple[int, Transcript]]:
        """Transcribe file by file; nothing of a file stays in memory but its words.

        Args:
            audio: paths of files of any rate and length, or arrays (samples,) at the model's rate.
            batch_size: windows per batch at most.
            unreadable: called for audio without a transcript; None: the error is raised.

        Yields:
            index and transcript, in order.

        Raises:
            UserError: audio cannot be used, and ``unreadable`` is None.
        """
        for index, parts in self._files(audio, batch_size):
            ways: list[Aligned] | None = None
            for part in parts:
                if isinstance(part, Stretch):
                    found = self._search(part)
                    ways = found if ways is None else self._combined(ways, found)
                elif isinstance(part, float):
                    best, *others = (self._transcript(way, part) for way in ways or ())
                    yield index, replace(best, nbest=tuple(others))
                else:
                    _tell(unreadable, index, part)

    def align(
        self,
        audio: Iterable[Audio],
        texts: Sequence[str],
        batch_size: int = 8,
        unreadable: Unreadable | None = None,
    ) -> Iterator[tuple[int, Transcript]]:
        """Align known texts, one per audio; the log-probs of one file stay in memory.

        Arguments and errors as for :meth:`transcribe`; all texts are checked first.

        Raises:
            UserError: a text has symbols that the dictionary lacks, see
                :func:`~fairseq_skd.transcription.texts.units_of_text`; or it is too long for its
                audio.
        """
        sign = boundary_of(self.dictionary.symbols)
        boundary = None if sign is None else self.dictionary.index(sign)
        spelt = [units_of_text(text, self.dictionary, self.post_process) for text in texts]
        for index, parts in self._files(audio, batch_size):
            log_probs: list[Floats] = []
            for part in parts:
                if isinstance(part, Stretch):
                    log_probs.append(part.log_probs)
                    continue
                if isinstance(part, float):
                    try:
                        found = align_units(np.concatenate(log_probs), spelt[index], boundary=boundary)
                    except UserError as error:
                        part = error
                    else:
                        yield index, self._transcript(Aligned(spelt[index], found, None), part)
                        continue
                _tell(unreadable, index, part)

    def _files(
        self, audio: Iterable[Audio], batch_size: int
    ) -> Iterator[tuple[int, Iterator[Stretch | float | UserError]]]:
        """Yield per file its index and its stretches; after them the duration or the error."""
        samples: dict[int, int] = {}

        def blocks(index: int, one: Audio) -> Iterator[Floats]:
            samples[index] = 0
            for block in self._read(one):
                samples[index] += len(block)
                yield block

        def parts(
            index: int, group: Iterable[tuple[int, Stretch | UserError]]
        ) -> Iterator[Stretch | float | UserError]:
            for _, item in group:
                yield item
                if isinstance(item, UserError):
                    return
            yield samples.pop(index) / self.waveforms.sample_rate

        sources = (blocks(index, one) for index, one in enumerate(audio))
        found = stretches(sources, self.run, self.grid, self.waveforms.sample_rate, batch_size=batch_size)
        for index, group in itertools.groupby(found, key=lambda item: item[0]):
            yield index, parts(index, group)

    def _read(self, audio: Audio) -> Iterator[Floats]:
        if isinstance(audio, str | os.PathLike):
            yield from read_blocks(audio, self.waveforms.sample_rate, self.waveforms.shortest)
        else:
            yield replace(self.waveforms, normalize=False).read(audio).numpy()

    def _search(self, stretch: Stretch) -> list[Aligned]:
        """Return the best hypotheses of a stretch, each with another text."""
        log_probs = torch.from_numpy(stretch.log_probs)
        if self.search is None:
            (units,) = greedy_units(log_probs.unsqueeze(1), torch.tensor([len(log_probs)]))
            return [self._aligned(stretch, Hypothesis(units, None), None)]
        found: dict[str, Aligned] = {}
        for hypothesis, score in self.search.ranked(log_probs):
            words = hypothesis.words
            text = (
                spell(hypothesis.units, self.dictionary, self.post_process).text if words is None else " ".join(words)
            )
            if text not in found:
                found[text] = self._aligned(stretch, hypothesis, score)
            if len(found) == self.nbest:
                break
        return list(found.values())

    def _aligned(self, stretch: Stretch, hypothesis: Hypothesis, score: float | None) -> Aligned:
        lexicon = None if self.search is None else self.search.lexicon
        aligned = align_hypothesis(stretch.log_probs, hypothesis, lexicon, self.dictionary)
        found = aligned.found
        moved = found._replace(
            starts=found.starts + stretch.start,
            ends=found.ends + stretch.start,
            peaks=found.peaks + stretch.start,
            score=found.score if score is None else score,
        )
        return aligned._replace(found=moved)

    def _combined(self, ways: list[Aligned], found: list[Aligned]) -> list[Aligned]:
        """Return the best ways to go on with the hypotheses of the next stretch."""
        pairs = sorted(itertools.product(ways, found), key=lambda pair: -(pair[0].found.score + pair[1].found.score))
        return [one.joined(other) for one, other in pairs[: self.nbest]]

    def _transcript(self, aligned: Aligned, seconds: float) -> Transcript:
        return aligned.transcript(
            self.dictionary, self.post_process, self.grid.step / self.waveforms.sample_rate, seconds
        )


def align_hypothesis(
    log_probs: Floats, hypothesis: Hypothesis, lexicon: Lexicon | None, dictionary: Dictionary
) -> Aligned:
    """Align a hypothesis with its frames.

    Args:
        log_probs: (T, V).
        hypothesis: from a search on these frames.
        lexicon: of the search; None: the search had none.
        dictionary: dictionary of the labels.
    """
    units, words = hypothesis
    found = align_units(log_probs, units)
    if words is None or lexicon is None:
        return Aligned(units, found, None)
    boundary = boundary_of(dictionary.symbols)
    silence = dictionary.symbols.index(boundary) if boundary is not None else -1
    spans = lexicon.spans(words, units, silence)
    if spans is None:  # a word outside the lexicon: share the units evenly
        edges = np.linspace(0, len(units), len(words) + 1).astype(int).tolist()
        spans = list(itertools.pairwise(edges))
    return Aligned(units, found, list(zip(words, spans, strict=True)))


def _tell(unreadable: Unreadable | None, index: int, error: UserError) -> None:
    if unreadable is None:
        raise error
    unreadable(index, error)
