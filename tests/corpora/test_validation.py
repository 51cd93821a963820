"""Every kind of problem, the report, and that all problems of all rows are found at once."""

from pathlib import Path

import pytest

from fairseq_skd.corpora.records import MOST_LINES, Fault, Kind, Problem, Record, report
from fairseq_skd.corpora.validation import label_faults, locate, validate
from fairseq_skd.files.units import Letters


def record(path: str, text: str = "GO ON", split: str = "train", line: int = 2) -> Record:
    """Make a record of the table ``t.tsv``."""
    return Record(path, text, split, "", "t.tsv", line)


@pytest.fixture
def root(tone, tmp_path: Path) -> str:
    """Write ok.wav and other.flac (1 s), short.wav (0.1 s), slow.wav, stereo.wav, empty.wav."""
    tone("ok.wav")
    tone("other.flac")
    tone("short.wav", 1600)
    tone("slow.wav", 8000, rate=8000)
    tone("stereo.wav", channels=2)
    tone("empty.wav", 0)
    return str(tmp_path / "corpus")


def faults(root: str, *records: Record, **options: bool) -> list[tuple[int, Kind, str]]:
    """Return line, kind and detail of each problem."""
    _, problems = validate(records, root, **options)
    return [(problem.line, problem.fault.kind, problem.fault.detail) for problem in problems]


def test_valid_records_become_utterances_in_order(root: str):
    utterances, problems = validate([record("other.flac", "ON"), record("ok.wav", "GO")], root)
    assert problems == []
    assert [(u.audio, u.samples, u.rate) for u in utterances] == [
        (f"{root}/other.flac", 16000, 16000),
        (f"{root}/ok.wav", 16000, 16000),
    ]


@pytest.mark.parametrize(
    ("path", "kind", "detail"),
    [
        ("none.wav", Kind.MISSING, "looked for {root}/none.wav"),
        ("slow.wav", Kind.RATE, "8000 Hz"),
        ("stereo.wav", Kind.CHANNELS, "2 channels"),
        ("empty.wav", Kind.EMPTY_AUDIO, ""),
        ("../corpus.wav", Kind.PATH, "it is not under {root}; give an --audio-root that holds all files"),
        ("/etc/passwd", Kind.PATH, "it is not under {root}; give an --audio-root that holds all files"),
        (" ok.wav", Kind.PATH, "it begins or ends with white space, which fairseq strips"),
        ("a\tb.wav", Kind.PATH, "it holds a tab, a line break or a zero byte, which end a field of the manifest"),
        ("a\nb.wav", Kind.PATH, "it holds a tab, a line break or a zero byte, which end a field of the manifest"),
        ("a\ud800.wav", Kind.PATH, "it is not Unicode text"),
        ("a:b.WAV", Kind.PATH, "fairseq allows a colon only in names that end in .wav, .flac, .ogg"),
    ],
)
def test_audio_and_paths(root: str, path: str, kind: Kind, detail: str):
    assert faults(root, record(path)) == [(2, kind, detail.format(root=root))]


@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        ("", Kind.EMPTY_TEXT, ""),
        ("  ", Kind.EMPTY_TEXT, ""),
        ("Go ON", Kind.ALPHABET, "'o'"),
        ("2 BE, OR", Kind.ALPHABET, "'2' ','"),
        ("DON\u2019T", Kind.ALPHABET, "'\u2019'"),
        ("GO\tON", Kind.ALPHABET, "'\\t'"),
        ("GO | ON", Kind.ALPHABET, "'|'"),
        ("GO  ON", Kind.ALPHABET, "a space at its beginning or end, or two in a row"),
        ("GO ON ", Kind.ALPHABET, "a space at its beginning or end, or two in a row"),
        ("A" * 25, Kind.TOO_LONG, "it needs 50 frames, 1.00 s have 49"),
    ],
)
def test_transcripts(root: str, text: str, kind: Kind, detail: str):
    assert faults(root, record("ok.wav", text)) == [(2, kind, detail)]


def test_longest_transcript_that_fits(root: str):
    assert faults(root, record("ok.wav", "A" * 24 + "B")) == []  # 26 units, 23 equal neighbours: 49 frames


@pytest.mark.parametrize("split", ["../up", "a/b", "a,b", "", ".hidden", "a b", "\ud800"])
def test_split_that_is_not_a_file_name(root: str, split: str):
    detail = f"the split {split!r} is not a file name of letters, digits, '_', '-' and '.'"
    assert faults(root, record("ok.wav", split=split)) == [(2, Kind.ROW, detail)]


def test_a_row_shows_all_its_problems(root: str):
    kinds = {kind for _, kind, _ in faults(root, Record("slow.wav", "abc", "a/b", "", "t.tsv", 9))}
    assert kinds == {Kind.ROW, Kind.ALPHABET, Kind.RATE}


def test_one_file_twice_in_a_split_under_any_path(root: str):
    paths = ["ok.wav", "./ok.wav", "x/../ok.wav", f"{root}/ok.wav"]
    rows = [record(path, line=line) for line, path in enumerate(paths, start=2)]
    assert faults(root, *rows) == [(line, Kind.DUPLICATE, "as in t.tsv:2") for line in (3, 4, 5)]
    assert faults(root, record("ok.wav"), record("ok.wav", split="train_1h", line=3)) == []


def test_located_paths(root: str):
    assert locate("x/../ok.wav", root) == f"{root}/ok.wav"
    assert locate("a:b.wav", root) == f"{root}/a:b.wav"
    assert locate("usr", "/") == "/usr"
    assert isinstance(locate("", root), Fault)


def test_resampling_accepts_other_rates_and_counts_frames_at_16_khz(root: str):
    utterances, problems = validate([record("slow.wav", "A" * 24)], root, resample=True)
    assert problems == [] and [(u.samples, u.rate) for u in utterances] == [(8000, 8000)]
    assert faults(root, record("slow.wav", "A" * 25), resample=True)[0][1] is Kind.TOO_LONG


def test_several_processes_find_the_same(root: str):
    names = ["ok.wav", "none.wav", "stereo.wav", "other.flac", "empty.wav"]
    rows = [record(name, split=f"s{turn}", line=turn) for turn in range(20) for name in names]
    assert validate(rows, root, jobs=1) == validate(rows, root, jobs=3)


def test_report_is_grouped_complete_and_counted(root: str):
    rows = [
        record("ok.wav", "yes", line=2),
        record("none.wav", line=3),
        record("stereo.wav", "noeo", line=4),
        record("bad\nname.wav", line=5),
        record("other.flac", line=6),
    ]
    _, problems = validate(rows, root)
    assert report(problems, len(rows)) == "\n".join(
        [
            "path that a manifest cannot hold (1); rename the file or correct the path:",
            "  t.tsv:5  bad\\nname.wav  it holds a tab, a line break or a zero byte, which end a field of the manifest",
            "missing file (1); correct the path, or the folder that it starts from:",
            f"  t.tsv:3  none.wav  looked for {root}/none.wav",
            "more than one channel (1); add --channel mean, or --channel 0 for the first:",
            "  2 channels  once, in t.tsv:4  stereo.wav",
            "character outside the alphabet (2); correct the transcripts, or change the alphabet as said for each:",
            "  'e' (U+0065 LATIN SMALL LETTER E)  2 times, first t.tsv:2; add --normalize upper",
            "  'o' (U+006F LATIN SMALL LETTER O)  2 times, first t.tsv:4; add --normalize upper",
            "  'n' (U+006E LATIN SMALL LETTER N)  once, in t.tsv:4; add --normalize upper",
            "  's' (U+0073 LATIN SMALL LETTER S)  once, in t.tsv:2; add --normalize upper",
            "  'y' (U+0079 LATIN SMALL LETTER Y)  once, in t.tsv:2; add --normalize upper",
            "refused: 4 of 5 rows (path that a manifest cannot hold 1, missing file 1, more than one channel 1, "
            "character outside the alphabet 2); nothing was written",
        ]
    )


def test_a_report_of_many_rows_stays_short():
    rates = [
        Problem(Fault(Kind.RATE, f"{48000 if row % 3 else 8000} Hz"), "t.tsv", row, f"{row}.wav") for row in range(300)
    ]
    empty = [Problem(Fault(Kind.EMPTY_TEXT), "t.tsv", row, f"{row}.wav") for row in range(300)]
    lines = report([*rates, *empty], 300).splitlines()
    assert lines[1:3] == ["  48000 Hz  200 times, first t.tsv:1  1.wav", "  8000 Hz  100 times, first t.tsv:0  0.wav"]
    assert lines[4:-2] == [f"  t.tsv:{row}  {row}.wav" for row in range(MOST_LINES)]
    assert lines[-2] == f"  and {300 - MOST_LINES} other rows"
    # skipped.txt has every row
    everything = report([*rates, *empty], 300, each_row=True).splitlines()
    assert len(everything) == 603 and "  t.tsv:299  299.wav  48000 Hz" in everything


@pytest.mark.parametrize("text", ["'", "\u200c", "\u0301", "' \u200d"])
def test_a_text_without_a_letter_is_empty(text: str):
    units = Letters([*"ab'\u200c\u200d\u0301"], b"")
    (fault,) = label_faults(Record("a.wav", text, "train", "", "t.tsv", 2), units)
    assert fault.kind is Kind.EMPTY_TEXT and ascii(text[0]) in fault.detail
    assert not list(label_faults(Record("a.wav", f"a {text}", "train", "", "t.tsv", 2), units))
