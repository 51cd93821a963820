"""Read a table of recordings: TSV, CSV or JSON lines.

The columns are path and text, optionally split and speaker.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_skd.corpora.records import Fault, Kind, Problem, Record
from fairseq_skd.errors import UserError

REQUIRED = ("path", "text")
OPTIONAL = ("split", "speaker")


class Row(NamedTuple):
    """A line of a table: its cells by column, and what is wrong with the line."""

    line: int
    cells: dict[str, object]
    fault: Fault | None = None


def read_table(table: Path, split: str | None = None) -> tuple[list[Record], list[Problem]]:
    """Read a table; the suffix ``.tsv``, ``.csv`` or ``.jsonl`` gives its format.

    Args:
        table: UTF-8 text. TSV and CSV name the columns in the first line; TSV has no quoting.
        split: split of every row if the table has no column ``split``; None means ``train``.

    Returns:
        the records in the table's order, and the problems of rows that could not become a record.

    Raises:
        UserError: the table cannot be read, lacks a required column or has no row, or ``split`` is
            given for a table that has a column ``split``.
    """
    if table.suffix.lower() not in READERS:
        raise UserError(f"{table}: the name of a table must end in one of {', '.join(READERS)}; rename or convert it")
    try:
        columns, rows = READERS[table.suffix.lower()](table, text_lines(table))
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror}); check the path") from error
    missing = [column for column in REQUIRED if column not in columns]
    if not rows and (missing == [] or not columns):
        raise UserError(f"{table}: holds no utterances; write one line per utterance")
    if missing:
        raise UserError(
            f"{table}: no column {' and no column '.join(missing)} among {', '.join(map(repr, columns))}; "
            "name the columns path and text in the first line (in JSON lines, as keys of each object)"
        )
    if split is not None and "split" in columns:
        raise UserError(f"{table}: has a column split, so --split cannot be given; drop one of the two")
    default = None if "split" in columns else split or "train"
    records: list[Record] = []
    problems: list[Problem] = []
    for row in rows:
        record, fault = _record(row, default, str(table))
        problems += [record.problem(fault)] if fault else []
        records += [] if fault else [record]
    return records, problems


def _record(row: Row, default_split: str | None, source: str) -> tuple[Record, Fault | None]:
    """Make the record of a row, and find what is wrong with the row."""
    values = {}
    fault = row.fault
    for column in (*REQUIRED, *OPTIONAL):
        value = row.cells.get(column)
        value = "" if value is None else value
        if column == "speaker" and isinstance(value, int):
            value = str(value)  # numbers are common as names of speakers
        if not isinstance(value, str):
            fault = fault or Fault(Kind.ROW, f"{column} is not a string but {json.dumps(value)}")
            value = ""
        values[column] = value
    split = values["split"] if default_split is None else default_split
    if not fault and not values["path"]:
        fault = Fault(Kind.ROW, "no path")
    if not fault and not split:
        fault = Fault(Kind.ROW, "no split")
    return Record(values["path"], values["text"], split, values["speaker"].strip(), source, row.line), fault


def text_lines(table: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises:
        OSError: the file cannot be read.
        UserError: a line is not UTF-8.
    """
    with open(table, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{table}: line {number} is not UTF-8; convert the file to UTF-8") from error


def read_tsv(table: Path, lines: Iterable[str]) -> tuple[list[str], list[Row]]:
    """Read columns and rows of a TSV, which has no quoting; skip empty lines."""
    return _delimited(table, csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_csv(table: Path, lines: Iterable[str]) -> tuple[list[str], list[Row]]:
    """Read columns and rows of a CSV, which has double quotes; skip empty lines."""
    return _delimited(table, csv.reader(lines, strict=True))


def _delimited(table: Path, reader: Any) -> tuple[list[str], list[Row]]:
    columns: list[str] = []
    rows = []
    end = 0  # last line of the previous row; a quoted CSV cell may span several lines
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not cells:
                continue
            if not columns:
                columns = cells
                continue
            fault = None
            if len(cells) != len(columns):
                fault = Fault(Kind.ROW, f"{len(cells)} cells under {len(columns)} columns")
            rows.append(Row(start, dict(zip(columns, cells, strict=False)), fault))
    except csv.Error as error:
        reason = str(error).split(" - ")[0]  # the rest is advice to programmers
        raise UserError(f"{table}: line {end + 1} cannot be read ({reason}); correct the line") from error
    repeated = [column for column in (*REQUIRED, *OPTIONAL) if columns.count(column) > 1]
    if repeated:
        raise UserError(f"{table}: two columns are named {repeated[0]}; rename one of them")
    return columns, rows


def read_json_lines(table: Path, lines: Iterable[str]) -> tuple[list[str], list[Row]]:
    """Read columns (all keys) and rows of JSON lines, one object per line; skip empty lines."""
    columns: dict[str, None] = {}
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{table}: line {number} is not JSON ({error}); write one object per line") from error
        if not isinstance(cells, dict):
            raise UserError(f"{table}: line {number} is not a JSON object; write one object per line")
        columns.update(dict.fromkeys(cells))
        rows.append(Row(number, cells))
    return list(columns), rows


READERS: dict[str, Callable[[Path, Iterable[str]], tuple[list[str], list[Row]]]] = {
    ".tsv": read_tsv,
    ".csv": read_csv,
    ".jsonl": read_json_lines,
}
