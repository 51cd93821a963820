"""Formats of transcripts, by their specifications."""

import doctest
import itertools
import json
import re

import pytest

from fairseq_skd.transcription import formats
from fairseq_skd.transcription.formats import FORMATS, Named, cues
from fairseq_skd.transcription.words import Transcript, Word


def named(*words: tuple[str, float, float], seconds: float = 10.0, name: str = "a b") -> Named:
    timed = tuple(Word(text, start, end, 0.5) for text, start, end in words)
    text = " ".join(word.text for word in timed)
    return Named("x/a b.wav", name, Transcript(text, timed, 0.5, seconds, -1.0))


TWO = named(("GO", 0.06, 0.2), ('S"O', 1.2, 1.26))


def test_txt_and_ctm() -> None:
    assert FORMATS["txt"](TWO) == 'x/a b.wav\tGO S"O\n'
    assert FORMATS["ctm"](TWO) == 'a_b 1 0.06 0.14 GO 0.5000\na_b 1 1.20 0.06 S"O 0.5000\n'


def test_jsonl() -> None:
    item = TWO._replace(transcript=Transcript("É", (), 0.0, 1.0, -2.0, (Transcript("E", (), 0.1, 1.0, -3.0),)))
    line = FORMATS["jsonl"](item)
    assert line.endswith("}\n") and line.count("\n") == 1 and "É" in line
    assert json.loads(line)["nbest"] == [
        {"text": "É", "score": -2.0, "confidence": 0.0},
        {"text": "E", "score": -3.0, "confidence": 0.1},
    ]
    words = json.loads(FORMATS["jsonl"](TWO))["words"]
    assert words[0] == {"text": "GO", "start": 0.06, "end": 0.2, "confidence": 0.5}


def test_srt_and_vtt() -> None:
    item = named(("A&B", 0.06, 0.2), ("<C>", 3661.2, 3661.26), seconds=4000.0)
    assert FORMATS["srt"](item) == (
        "1\n00:00:00,060 --> 00:00:01,060\nA&B\n\n2\n01:01:01,200 --> 01:01:02,200\n<C>\n\n"
    )
    assert FORMATS["vtt"](item) == (
        "WEBVTT\n\n00:00:00.060 --> 00:00:01.060\nA&amp;B\n\n01:01:01.200 --> 01:01:02.200\n&lt;C&gt;\n\n"
    )


def test_cues_break_at_pauses_length_and_duration() -> None:
    def texts(*words: tuple[str, float, float]) -> list[str]:
        return [cue.text for cue in cues(named(*words, seconds=100.0).transcript)]

    assert texts(("A", 0.0, 0.1), ("B", 0.59, 0.7), ("C", 1.2, 1.3)) == ["A B", "C"]
    assert texts(*((str(i), 0.4 * i, 0.4 * i + 0.3) for i in range(16))) == [
        " ".join(map(str, range(15))),  # until 5.9 s
        "15",
    ]
    long = [("W" * 20, 0.1 * i, 0.1 * i + 0.1) for i in range(5)]
    assert texts(*long) == ["\n".join([" ".join(["W" * 20] * 2)] * 2), "W" * 20]
    assert texts(("W" * 90, 0.0, 9.0), ("A", 9.1, 9.2)) == ["W" * 90, "A"]
    first, second = cues(named(("A", 0.0, 0.1), ("B", 0.8, 0.9), seconds=1.0).transcript)
    assert (first.end, second.end) == (0.8, 1.0)  # not into the next cue, nor past the audio


def parse_textgrid(text: str) -> list[tuple[float, float, str]]:
    found = re.findall(r'intervals \[\d+\]:\n +xmin = (\S+)\n +xmax = (\S+)\n +text = "(.*)"\n', text)
    return [(float(start), float(end), label.replace('""', '"')) for start, end, label in found]


@pytest.mark.parametrize("words", [(), (("GO", 0.0, 0.2), ("ON", 0.2, 10.0)), (("GO", 0.06, 0.2), ('S"O', 1.2, 1.26))])
def test_textgrid_covers_the_audio(words: tuple[tuple[str, float, float], ...]) -> None:
    item = named(*words)
    text = FORMATS["TextGrid"](item)
    assert text.startswith(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 10\ntiers? <exists>\n'
    )
    intervals = parse_textgrid(text)
    assert f"intervals: size = {len(intervals)}\n" in text
    assert intervals[0][0] == 0.0 and intervals[-1][1] == 10.0
    assert all(one[1] == other[0] and one[0] < one[1] for one, other in itertools.pairwise(intervals))
    assert [label for *_, label in intervals if label] == [word for word, *_ in words]


def test_the_example() -> None:
    assert doctest.testmod(formats).failed == 0
