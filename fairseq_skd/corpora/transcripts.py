"""Read transcripts: hypotheses or references, in any of five formats.

``text``   One utterance per line, without names.
``trn``    ``words (utterance)``, as NIST's sclite and as fairseq's ``hypo.word``.
``kaldi``  ``utterance words``, or audio file, tab, words, as ``fairseq_skd.transcribe`` writes.
``jsonl``  One object per line, with ``text`` (in hypotheses first ``pred_text``) and a name.
``table``  TSV or CSV with such columns.

A name in jsonl and in tables is an ``id`` or ``utt_id``, or a file in ``audio``, ``path`` or
``audio_filepath``. Formats are told by suffix and content. A line of ``kaldi`` looks like a line of
``text``: another file with names decides, or the user.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.tables import DELIMITERS, Row, read_rows, text_lines
from fairseq_skd.errors import UserError, shown

FORMATS = ("text", "trn", "kaldi", "jsonl", "table")
_SUFFIXES = {".trn": "trn", ".jsonl": "jsonl", ".json": "jsonl", ".tsv": "table", ".csv": "table"}
_TIMED = (".ctm", ".stm", ".srt", ".vtt", ".textgrid")
_TRN = re.compile(r"(?P<text>.*?)\s*\((?P<name>[^()\s]+)\)")
_AUDIO_FIRST = re.compile(r"(?P<path>[^\t]+\.\w{2,5})(\t.*)?")
_LIKE_A_NAME = re.compile(r"[\d_-]")
_NAMES = ("id", "utt_id")
_PATHS = ("audio", "path", "audio_filepath")


class Source(NamedTuple):
    """A file of transcripts, and what the command line says about it.

    Attributes:
        path: the file.
        option: option that sets the format, for messages.
        format: one of :data:`FORMATS`; None: tell it by suffix and content.
        text_keys: keys of the text in jsonl and in tables, best first.
    """

    path: Path
    option: str
    format: str | None = None
    text_keys: tuple[str, ...] = ("text",)


class Transcripts(NamedTuple):
    """The transcripts of a file, in its order.

    Attributes:
        path: the file.
        format: one of :data:`FORMATS`.
        records: ``path`` is the utterance's name, or its audio file, or empty; ``split`` is empty.
        named_by_file: the names are paths of audio files.
    """

    path: Path
    format: str
    records: list[Record]
    named_by_file: bool = False

    @property
    def named(self) -> bool:
        """Whether the utterances have names."""
        return self.format != "text" and bool(self.records[0].path)


def read_transcripts(sources: Sequence[Source]) -> list[Transcripts]:
    """Read files that belong together, such as hypotheses and references.

    Raises:
        UserError: a file cannot be read, holds no utterance or a line that its format does not
            have, or its format cannot be told.
    """
    lines = [_lines(source.path) for source in sources]
    formats = [source.format or _told(source.path, text) for source, text in zip(sources, lines, strict=True)]
    read = {
        place: _READ[known](source, text)
        for place, (source, text, known) in enumerate(zip(sources, lines, formats, strict=True))
        if known
    }
    names = {name for found in read.values() if found.named for name in _short_names(found)}
    if not names:
        _refuse_two_readings([(s, t) for s, t, known in zip(sources, lines, formats, strict=True) if not known])
    for place, (source, text) in enumerate(zip(sources, lines, strict=True)):
        if place not in read:
            first = _first_words(text)
            kaldi = 2 * sum(word in names for word in first) >= len(first)
            read[place] = _READ["kaldi" if kaldi and names else "text"](source, text)
    return [read[place] for place in range(len(sources))]


def _lines(path: Path) -> list[str]:
    try:
        lines = list(text_lines(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not any(lines):
        raise UserError(f"{path}: is empty; write one line per utterance")
    for number, line in enumerate(lines, start=1):
        if "\0" in line or "\r" in line.rstrip("\r\n"):
            what = "a NUL character" if "\0" in line else "a carriage return inside"
            raise UserError(f"{path}: line {number} holds {what}; convert the file to UTF-8 text with Unix line ends")
    return lines


def _told(path: Path, lines: Sequence[str]) -> str | None:
    """Tell the format by suffix, name and content; None: ``text`` or ``kaldi``."""
    suffix = path.suffix.lower()
    if suffix in _TIMED:
        raise UserError(f"{path}: files with times ({suffix}) are not read; give a transcript in {', '.join(FORMATS)}")
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    filled = [line.strip() for line in lines if line.strip()]
    if path.name == "text" or not filled:
        return "kaldi" if filled else "text"
    if filled[0].startswith("{") and filled[0].endswith("}") and _is_an_object(filled[0]):
        return "jsonl"
    columns = filled[0].split("\t")
    if "text" in columns and any(name in columns for name in (*_NAMES, *_PATHS)):
        return "table"
    if any("\t" in line for line in filled) and all(map(_AUDIO_FIRST.fullmatch, filled)):
        return "kaldi"
    marked = sum(bool(_TRN.fullmatch(line)) or line.startswith(";;") for line in filled)
    return "trn" if 2 * marked > len(filled) else None


def _is_an_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _first_words(lines: Sequence[str]) -> list[str]:
    return [line.split(None, 1)[0] for line in lines if line.strip()]


def _refuse_two_readings(undecided: Sequence[tuple[Source, Sequence[str]]]) -> None:
    """Refuse files without any name beside them if each line may begin with a name, or not."""
    words = [_first_words(lines) for _, lines in undecided]
    if (
        len(words) > 1
        and all(len(set(first)) == len(first) and all(map(_LIKE_A_NAME.search, first)) for first in words)
        and set.intersection(*map(set, words))
    ):
        options = list(dict.fromkeys(source.option for source, _ in undecided))
        raise UserError(
            f"{undecided[0][0].path}: each line begins with a word of its own, such as {shown(words[0][0])!r}, which "
            f"may name the utterance; add {' and '.join(f'{option} kaldi' for option in options)} if it does, or "
            f"{' and '.join(f'{option} text' for option in options)}"
        )


def _short_names(found: Transcripts) -> list[str]:
    return [Path(record.path).stem if found.named_by_file else record.path for record in found.records]


def _read_text(source: Source, lines: Sequence[str]) -> Transcripts:
    records = [_record(source, "", line.strip(), number) for number, line in enumerate(lines, start=1)]
    return Transcripts(source.path, "text", records)


def _read_trn(source: Source, lines: Sequence[str]) -> Transcripts:
    records = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith(";;"):
            continue
        found = _TRN.fullmatch(text)
        if found is None:
            raise UserError(
                f"{source.path}: line {number} does not end in the utterance's name in brackets, as 'GO ON (utt-7)'; "
                f"add the name, or {source.option} text if the lines have none"
            )
        if {"{", "/", "}"} <= set(found["text"].split()):
            raise UserError(f"{source.path}: line {number} holds alternatives {{ a / b }}; choose one of them")
        records.append(_record(source, found["name"], found["text"], number))
    return _filled(Transcripts(source.path, "trn", records))


def _read_kaldi(source: Source, lines: Sequence[str]) -> Transcripts:
    by_file = all(_AUDIO_FIRST.fullmatch(line.strip()) for line in lines if line.strip())
    sign = "\t" if by_file else None  # a path may have spaces
    numbered = ((number, line.strip().split(sign, 1)) for number, line in enumerate(lines, start=1) if line.strip())
    records = [
        _record(source, fields[0], fields[1].strip() if len(fields) > 1 else "", number) for number, fields in numbered
    ]
    return _filled(Transcripts(source.path, "kaldi", records, by_file))


def _read_jsonl(source: Source, lines: Sequence[str]) -> Transcripts:
    return _from_rows(source, "jsonl", *read_rows(source.path, lines, DELIMITERS[".jsonl"]))


def _read_table(source: Source, lines: Sequence[str]) -> Transcripts:
    delimiter = DELIMITERS[".csv" if source.path.suffix.lower() == ".csv" else ".tsv"]
    return _from_rows(source, "table", *read_rows(source.path, lines, delimiter))


_READ = {"text": _read_text, "trn": _read_trn, "kaldi": _read_kaldi, "jsonl": _read_jsonl, "table": _read_table}


def _from_rows(source: Source, kind: str, columns: Sequence[str], rows: Sequence[Row]) -> Transcripts:
    text_key = next((key for key in source.text_keys if key in columns), None)
    if text_key is None and columns:
        raise UserError(
            f"{source.path}: no {' and no '.join(source.text_keys)} among {shown(', '.join(map(repr, columns)))}; "
            + ("name the columns in the first line" if kind == "table" else "give each object its text")
        )
    name_key = next((key for key in (*_NAMES, *_PATHS) if key in columns), "")
    records = []
    for row in rows:
        where = f"{source.path}: line {row.line}"
        if row.fault:
            raise UserError(f"{where} has {row.fault.detail}; correct the line")
        text = row.cells.get(str(text_key))
        if not isinstance(text, str) or not _is_unicode(text):
            given = shown(json.dumps(text))
            raise UserError(f'{where}: {text_key} is {given}; write a string of words, "" if nothing is said')
        name, speaker = (_word(row.cells.get(key)) for key in (name_key, "speaker"))
        if name_key and not name:
            raise UserError(f"{where} has no {name_key}; name every utterance, or none")
        records.append(_record(source, name, text, row.line, speaker))
    return _filled(Transcripts(source.path, kind, records, name_key in _PATHS))


def _word(value: object) -> str:
    """Return a name of a row; numbers are common as names."""
    word = str(value).strip() if isinstance(value, str | int) else ""
    return word if _is_unicode(word) else ""


def _is_unicode(text: str) -> bool:
    """Whether a text from JSON has no half of a surrogate pair, which no file can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _record(source: Source, name: str, text: str, line: int, speaker: str = "") -> Record:
    return Record(name, text, "", speaker, str(source.path), line)


def _filled(found: Transcripts) -> Transcripts:
    if not found.records:
        raise UserError(f"{found.path}: holds no utterances; write one line per utterance")
    return found
