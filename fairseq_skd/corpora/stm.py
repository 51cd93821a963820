"""Reading STM files (NIST's segment time marks) as the releases of TED-LIUM write them.

A line is ``recording channel speaker start end <label> text``, times in seconds; lines that begin with ``;;`` are
comments. The releases have habits of their own, and each is undone here, counted, and told:

- ``ignore_time_segment_in_scoring`` in the place of the text: nobody wrote down what is said; the segment is left out;
- ``<unk>``: a word that nobody wrote down; the segment is left out, or only the mark (as the caller says);
- ``{NOISE}``, ``{COUGH}``, ``<sil>``, ...: sounds that are no words, and pauses; the marks are removed;
- ``the(2)``: the number of a pronunciation; it is removed;
- ``it 's``, ``don 't``, ``parents '``: the end of a word stands alone; it is joined to the word before.
  Words that begin with an apostrophe by themselves (``'em``, ``'cause``) stay apart.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.problems import Fault, Kind, Problem
from fairseq_skd.files.disk import numbered_lines

IGNORED = "ignore_time_segment_in_scoring"
UNKNOWN = "<unk>"
_MARK = re.compile(r"\{[^{}\s]*\}|<sil>", re.IGNORECASE)
_PRONUNCIATION = re.compile(r"(?<=\S)\(\d+\)$")
_ENDINGS = frozenset({"'", "'s", "'t", "'d", "'m", "'ll", "'re", "'ve"})
_LABEL = re.compile(r"<[^<>]*>")


class Mark(NamedTuple):
    """A line of an STM file whose text is to be used, the text as the file has it."""

    recording: str
    speaker: str
    start: float
    end: float
    text: str
    line: int


def read_stm(path: Path) -> tuple[list[Mark], list[Problem]]:
    """The segments of an STM file, and its malformed lines.

    Raises:
        UserError: if the file cannot be read, or is not UTF-8.
    """
    marks: list[Mark] = []
    problems: list[Problem] = []
    for line, content in numbered_lines(path):
        if content.startswith(";;"):
            continue
        fields = content.split(None, 5)
        try:
            recording, _, speaker, start, end = fields[:5]
            rest = fields[5] if len(fields) > 5 else ""
            label = _LABEL.match(rest)
            if label and label.group().lower() not in (UNKNOWN, "<sil>"):  # the label is optional in STM
                rest = rest[label.end() :]
            times = float(start), float(end)
            if not all(map(math.isfinite, times)):
                raise ValueError
            marks.append(Mark(recording, speaker, *times, rest.strip(), line))
        except ValueError:
            fault = Fault(Kind.ROW, "no line 'recording channel speaker start end <label> text', times in seconds")
            problems.append(Problem(fault, str(path), line, fields[0]))
    return marks, problems


def plain_words(text: str, changes: Counter[str]) -> str:
    """A transcript in plain words, marks removed and apostrophes joined; ``<unk>`` stays.

    Args:
        text: of an STM line.
        changes: counts what was done, by description.

    >>> plain_words("it 's the(2) end {NOISE}", Counter())
    "it's the end"
    """
    words: list[str] = []
    for word in text.split():
        if _MARK.fullmatch(word):
            changes["marks of sounds and pauses removed ({NOISE}, <sil>)"] += 1
            continue
        spoken = _PRONUNCIATION.sub("", word)
        changes["numbers of pronunciations removed: the(2) -> the"] += spoken != word
        if spoken.lower() in _ENDINGS and words and words[-1] != UNKNOWN:
            changes["apostrophes joined to the word before: it 's -> it's"] += 1
            words[-1] += spoken
        else:
            words.append(spoken)
    return " ".join(words)
