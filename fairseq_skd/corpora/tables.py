"""Read a table of recordings: TSV, CSV or JSON lines, with or without names of columns."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import AUDIO_SUFFIXES, Fault, Kind, Problem, Record
from fairseq_skd.errors import UserError


class Row(NamedTuple):
    """A line of a table: its cells by column, and what is wrong with the line."""

    line: int
    cells: dict[str, object]
    fault: Fault | None = None


class Names(NamedTuple):
    """Names of the columns that make a record."""

    path: str
    text: str
    split: str = "split"
    speaker: str = "speaker"


class Columns(NamedTuple):
    """Columns that the user names; None: the column of the field's name, if the table has it."""

    path: str | None = None
    text: str | None = None
    split: str | None = None
    speaker: str | None = None

    def names(self) -> Names:
        """Put the fields' names where the user names no column."""
        return Names(*(given or role for role, given in self._asdict().items()))


FIELD_NAMES = Columns()

DELIMITERS = {".tsv": "\t", ".csv": ",", ".jsonl": ""}
QUOTED = frozenset(",;")
"""Delimiters of files with double quotes around some cells; with other delimiters, a quote is a
character like any other."""

# Columns of well-known formats: what they hold, and the source that reads the format.
_KNOWN = {
    "path": ("audio_filepath", "file_name", "audio_path", "audio", "file", "filename", "wav"),
    "text": ("sentence", "transcription", "transcript", "normalized_text"),
}
_SOURCES = {"client_id": "commonvoice", "audio_filepath": "nemo", "file_name": "audiofolder"}


def read_table(
    table: Path,
    split: str | None = None,
    columns: Columns = FIELD_NAMES,
    delimiter: str | None = None,
    header: bool = True,
) -> tuple[list[Record], list[Problem]]:
    """Read a table; the suffix ``.tsv``, ``.csv`` or ``.jsonl`` gives its format.

    Args:
        table: UTF-8 text.
        split: split of every row if the table has no column for it; None means ``train``.
        columns: names of columns.
        delimiter: character between cells, whatever the suffix; None: the suffix gives it.
        header: the first line names the columns; without it they are called ``1``, ``2``, ...

    Returns:
        the records in the table's order, and the problems of rows that could not become a record.

    Raises:
        UserError: the table cannot be read, lacks a column that is required or named, or has no
            row; ``split`` is given for a table with a column for it; or the options contradict the
            format.
    """
    suffix = table.suffix.lower()
    if delimiter is None and suffix not in DELIMITERS:
        raise UserError(
            f"{table}: the name of a table must end in one of {', '.join(DELIMITERS)}; rename or convert it, or give "
            "--delimiter, the character between its cells"
        )
    if suffix == ".jsonl" and (delimiter is not None or not header):
        raise UserError(f"{table}: JSON lines name their columns in each line; drop --delimiter and --no-header")
    names = columns.names()
    if names.path == names.text:
        raise UserError(f"{table}: --path-column and --text-column both name {names.path!r}; name two columns")
    try:
        mark = DELIMITERS[suffix] if delimiter is None else delimiter
        there, rows = read_rows(table, text_lines(table), mark, header, names)
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror}); check the path") from error
    missing = [
        (role, name)
        for role, name, given in zip(Columns._fields, names, columns, strict=True)
        if name not in there and (given or role in ("path", "text"))
    ]
    if not rows and (missing == [] or not there):
        raise UserError(f"{table}: holds no utterances; write one line per utterance")
    if missing:
        raise UserError(f"{table}: {_complaint(missing, columns, there, header)}")
    if not header and rows[0].cells[names.path] in ("path", *_KNOWN["path"]):
        first = ", ".join(map(repr, rows[0].cells.values()))
        raise UserError(f"{table}: the first line is a header, {first}; drop --no-header")
    if split is not None and names.split in there:
        raise UserError(f"{table}: has a column {names.split}, so --split cannot be given; drop one of the two")
    default = None if names.split in there else split or "train"
    records: list[Record] = []
    problems: list[Problem] = []
    for row in rows:
        record, fault = to_record(row, names, default, str(table))
        problems += [record.problem(fault)] if fault else []
        records += [] if fault else [record]
    return records, problems


def _complaint(missing: Sequence[tuple[str, str]], columns: Columns, there: Sequence[str], header: bool) -> str:
    """Say which columns are missing, which are there, and which options or source would help."""
    lacking = f"no column {' and no column '.join(name for _, name in missing)} among {', '.join(map(repr, there))}"
    marks = [mark for mark in ";,\t|" if len(there) == 1 and mark in there[0]]
    if marks:
        named = "tab" if marks[0] == "\t" else f"'{marks[0]}'"
        return f"{lacking}; the cells of this table seem to be separated otherwise: add --delimiter {named}"
    given = [role for role, _ in missing if getattr(columns, role)]
    if given:
        return f"{lacking}; correct --{given[0]}-column" + ("" if header else " (without a header, a number from 1)")
    if not header:
        return f"{lacking}; without a header, give --path-column and --text-column as numbers from 1"
    audio = [number for number, name in enumerate(there, 1) if name.lower().endswith(AUDIO_SUFFIXES)]
    if audio:
        text = 1 if audio[0] > 1 else 2
        return (
            f"{lacking}; name the columns path and text in the first line, or, if the first line is an utterance, add "
            f"--no-header --path-column {audio[0]} --text-column {text}"
        )
    known = {role: next((name for name in _KNOWN[role] if name in there), "") for role, _ in missing}
    guesses = " ".join(f"--{role}-column {name or 'NAME'}" for role, name in known.items() if any(known.values()))
    sources = [f", or choose the source {source}" for name, source in _SOURCES.items() if name in there]
    if guesses:
        return f"{lacking}; add {guesses}{''.join(sources[:1])}"
    return (
        f"{lacking}; name the columns path and text in the first line (in JSON lines, as keys of each object), or give "
        "--path-column and --text-column"
    )


def to_record(row: Row, names: Names, default_split: str | None, source: str) -> tuple[Record, Fault | None]:
    """Make the record of a row, and find what is wrong with the row.

    Args:
        row: the row.
        names: the columns; a row may lack them.
        default_split: the split; None: it is in a column.
        source: the file.
    """
    values = {"split": default_split or ""}
    fault = row.fault
    for role, name in names._asdict().items():
        if role == "split" and default_split is not None:
            continue
        value = row.cells.get(name)
        value = "" if value is None else value
        if role == "speaker" and isinstance(value, int):
            value = str(value)  # numbers are common as names of speakers
        if not isinstance(value, str):
            fault = fault or Fault(Kind.ROW, f"{name} is not a string but {json.dumps(value)}")
            value = ""
        values[role] = value
    split = values["split"]
    if not fault and not values["path"]:
        fault = Fault(Kind.ROW, f"no {names.path}")
    if not fault and not split:
        fault = Fault(Kind.ROW, f"no {names.split}")
    return Record(values["path"], values["text"], split, values["speaker"].strip(), source, row.line), fault


def read_rows(
    table: Path, lines: Iterable[str], delimiter: str, header: bool = True, names: Iterable[str] = Columns._fields
) -> tuple[list[str], list[Row]]:
    """Read columns and rows of a table; skip empty lines.

    Args:
        table: the file, for messages.
        lines: its lines with their line ends, see :func:`text_lines`.
        delimiter: character between cells; empty for JSON lines, whose columns are all their keys.
        header: see :func:`read_table`.
        names: columns that may occur only once.

    Raises:
        UserError: a line cannot be read in this format, or two columns have the same name of
            ``names``.
    """
    if delimiter:
        columns, rows = _delimited(table, lines, delimiter, header)
        repeated = [name for name in names if columns.count(name) > 1]
        if repeated:
            raise UserError(f"{table}: two columns are named {repeated[0]}; rename one of them")
        return columns, rows
    rows = list(json_rows(table, lines))
    return list(dict.fromkeys(key for row in rows for key in row.cells)), rows


def text_lines(table: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends, without a byte order mark.

    A file whose name ends in ``.gz`` is unpacked.

    Raises:
        OSError: the file cannot be read.
        UserError: a line is not UTF-8, or the file cannot be unpacked.
    """
    with gzip.open(table, "rb") if table.suffix == ".gz" else open(table, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{table}: line {number} is not UTF-8; convert the file to UTF-8") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{table}: cannot be unpacked ({error}); write or download it again") from error


def _delimited(table: Path, lines: Iterable[str], delimiter: str, header: bool) -> tuple[list[str], list[Row]]:
    if delimiter in QUOTED:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    columns: list[str] = []
    rows = []
    end = 0  # last line of the previous row; a quoted CSV cell may span several lines
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not cells:
                continue
            if not columns:
                columns = cells if header else [str(number) for number in range(1, len(cells) + 1)]
                if header:
                    continue
            fault = None
            if len(cells) != len(columns):
                fault = Fault(Kind.ROW, f"{len(cells)} cells under {len(columns)} columns")
            names = columns if header else map(str, range(1, len(cells) + 1))
            rows.append(Row(start, dict(zip(names, cells, strict=False)), fault))
    except csv.Error as error:
        reason = str(error).split(" - ")[0]  # the rest is advice to programmers
        raise UserError(f"{table}: line {end + 1} cannot be read ({reason}); correct the line") from error
    return columns, rows


def json_rows(table: Path, lines: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of JSON lines, one object per line; skip empty lines.

    Raises:
        UserError: a line is not a JSON object.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{table}: line {number} is not JSON ({error}); write one object per line") from error
        if not isinstance(cells, dict):
            raise UserError(f"{table}: line {number} is not a JSON object; write one object per line")
        yield Row(number, cells)
