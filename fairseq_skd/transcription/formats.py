"""Write transcripts: txt, jsonl, srt, vtt, ctm and TextGrid.

Subtitles: a cue holds at most two lines of 42 characters and 6 s; a longer word stays whole. A
pause of 0.5 s ends a cue. It is shown for at least 1 s, if the next one does not begin earlier.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from fairseq_skd.transcription.words import Transcript, Word

_WIDTH, _LINES = 42, 2  # characters per line, lines per cue
_LONGEST, _PAUSE, _SHORTEST = 6.0, 0.5, 1.0  # seconds


class Named(NamedTuple):
    """A transcript and its audio.

    Attributes:
        path: the audio file, as the user wrote it or below the folder that the user named.
        name: name for output files and CTM, unique in one call.
        transcript: its transcript.
    """

    path: str
    name: str
    transcript: Transcript


def txt(item: Named) -> str:
    """Return one line: path, tab, text."""
    return f"{item.path}\t{item.transcript.text}\n"


def jsonl(item: Named) -> str:
    """Return one line: a JSON object with everything."""
    found = item.transcript
    values: dict[str, Any] = {
        "path": item.path,
        "text": found.text,
        "confidence": found.confidence,
        "seconds": round(found.seconds, 6),
        "words": [asdict(word) for word in found.words],
    }
    if found.nbest:
        values["nbest"] = [
            {"text": one.text, "score": one.score, "confidence": one.confidence} for one in (found, *found.nbest)
        ]
    return json.dumps(values, ensure_ascii=False) + "\n"


def ctm(item: Named) -> str:
    """Return a line per word: file, channel, start, duration, word, confidence (NIST's format)."""
    name = ctm_name(item.name)
    return "".join(
        f"{name} 1 {word.start:.2f} {word.end - word.start:.2f} {word.text} {word.confidence:.4f}\n"
        for word in item.transcript.words
    )


def ctm_name(name: str) -> str:
    """Return a name for the first field of CTM, which ends at a space.

    >>> ctm_name("x/a b")
    'x/a_b'
    """
    return "_".join(name.split()) or "_"


def srt(item: Named) -> str:
    """Return SubRip subtitles."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues(item.transcript), start=1)
    )


def vtt(item: Named) -> str:
    """Return WebVTT subtitles."""
    shown = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        f"{cue.text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}\n\n"
        for cue in cues(item.transcript)
    )
    return "WEBVTT\n\n" + "".join(shown)


def textgrid(item: Named) -> str:
    """Return a Praat TextGrid in its long text format, with one tier ``words``."""
    found = item.transcript
    intervals = list(_intervals(found.words, found.seconds))
    head = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_number(found.seconds)}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "words"',
        "        xmin = 0",
        f"        xmax = {_number(found.seconds)}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, end, text) in enumerate(intervals, start=1):
        head += [
            f"        intervals [{number}]:",
            f"            xmin = {_number(start)}",
            f"            xmax = {_number(end)}",
            '            text = "' + text.replace('"', '""') + '"',
        ]
    return "\n".join(head) + "\n"


FORMATS: dict[str, Callable[[Named], str]] = {
    "txt": txt,
    "jsonl": jsonl,
    "ctm": ctm,
    "srt": srt,
    "vtt": vtt,
    "TextGrid": textgrid,
}


class Cue(NamedTuple):
    """A subtitle: start and end in seconds, and its lines."""

    start: float
    end: float
    text: str


def cues(found: Transcript) -> list[Cue]:
    """Group words to subtitles, by the rule at the top of this module."""
    groups: list[list[Word]] = []
    for word in found.words:
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    shown = []
    for place, group in enumerate(groups):
        following = groups[place + 1][0].start if place + 1 < len(groups) else found.seconds
        end = max(group[-1].end, min(group[0].start + _SHORTEST, following))
        shown.append(Cue(group[0].start, end, "\n".join(_wrapped([word.text for word in group]))))
    return shown


def _fits(group: Sequence[Word], word: Word) -> bool:
    lines = _wrapped([*(one.text for one in group), word.text])
    return (
        word.start - group[-1].end < _PAUSE
        and word.end - group[0].start <= _LONGEST
        and len(lines) <= _LINES
        and max(map(len, lines)) <= _WIDTH
    )


def _wrapped(words: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _clock(seconds: float, point: str) -> str:
    """Write hours, minutes, seconds and milliseconds.

    >>> _clock(3661.2, ",")
    '01:01:01,200'
    """
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{thousandths:03d}"


def _intervals(words: Sequence[Word], seconds: float) -> Iterator[tuple[float, float, str]]:
    """Yield the words and the gaps between them; together they cover the audio."""
    place = 0.0
    for word in words:
        if word.start > place:
            yield place, word.start, ""
        yield word.start, word.end, word.text
        place = word.end
    if place < seconds or not words:
        yield place, seconds, ""


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
