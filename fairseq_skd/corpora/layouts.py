"""Read released corpora that list their utterances in tables, and folders of audio alone.

Common Voice, LJSpeech, MLS and FLEURS differ in the names and places of their files and columns,
which :data:`LAYOUTS` declares. Hugging Face's audio folders have a table in any folder.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.languages import base, is_code, language_code
from fairseq_skd.corpora.records import AUDIO_SUFFIXES, Corpus, Fault, Problem, Record, choose
from fairseq_skd.corpora.tables import DELIMITERS, Names, Row, read_rows, text_lines, to_record
from fairseq_skd.errors import UserError


class Found(NamedTuple):
    """An utterance of a list: its record, what is wrong with it, and the name of its language."""

    record: Record
    fault: Fault | None = None
    language: object = None


def gather(
    title: str,
    lists: Mapping[str, Callable[[], Iterable[Found]]],
    splits: Sequence[str] | None,
    default: Sequence[str],
    root: Path,
) -> Corpus:
    """Read the chosen splits of a source.

    Args:
        title: name of the source in messages.
        lists: a reader per split of the source.
        splits: see :func:`fairseq_skd.corpora.records.choose`.
        default: the splits that ``splits=None`` means.
        root: the folder that the records' paths start from.

    Raises:
        UserError: a split of ``splits`` does not exist.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    languages: dict[str, None] = {}
    for split, readers in choose(lists, splits, default).items():
        for reader in readers:
            for record, fault, language in reader():
                if fault:
                    problems.append(record.problem(fault))
                else:
                    records.append(record._replace(split=split, text=" ".join(record.text.split())))
                    languages[language_code(language)] = None
    languages.pop("", None)
    bases = dict.fromkeys(language if not is_code(language) else base(language) for language in languages)
    named = languages if len(languages) == 1 else bases  # de-DE and de-AT are de
    return Corpus(title, records, problems, root, language=", ".join(named))


class Layout(NamedTuple):
    """A corpus with one table per split.

    Attributes:
        title: name of the corpus in messages.
        shape: its files, for the message that it is not there.
        listing: path of a split's table, with ``{split}``.
        folders: the folder has one of these, which tells it from another corpus.
        splits: all splits; a release may lack some.
        default: the splits that are read if the user chooses none.
        delimiter: character between the cells of a table.
        header: the first line names the columns.
        names: the columns.
        place: makes the path of the audio and the name of the speaker from the corpus's folder, the
            split and the row's record.
        language: finds the name of the language from the corpus's folder and a row.
    """

    title: str
    shape: str
    listing: str
    folders: Sequence[str]
    splits: Sequence[str]
    default: Sequence[str]
    delimiter: str
    header: bool
    names: Names
    place: Callable[[Path, str, Record], tuple[str, str]]
    language: Callable[[Path, Row], object]


def _clip(folder: Path, split: str, record: Record) -> tuple[str, str]:
    """Name a clip of Common Voice, whose first releases leave out the suffix."""
    return f"clips/{record.path}" + ("" if record.path.lower().endswith(AUDIO_SUFFIXES) else ".mp3"), record.speaker


def _wav(folder: Path, split: str, record: Record) -> tuple[str, str]:
    return f"wavs/{record.path}.wav", ""


def _chapter_file(folder: Path, split: str, record: Record) -> tuple[str, str]:
    """Name a file of MLS: FLAC, or Opus in the compressed release."""
    speaker, _, rest = record.path.partition("_")
    stem = f"{split}/audio/{speaker}/{rest.partition('_')[0]}/{record.path}"
    opus = folder.name.endswith("opus") or (folder / f"{stem}.opus").is_file()
    return f"{stem}.{'opus' if opus else 'flac'}", speaker


def _fleurs_file(folder: Path, split: str, record: Record) -> tuple[str, str]:
    """Name a file of FLEURS, whose archives were unpacked into ``audio/`` or beside the tables."""
    return f"audio/{split}/{record.path}" if (folder / "audio").is_dir() else f"{split}/{record.path}", ""


def _in_name(pattern: str, folder: Path) -> str:
    found = re.fullmatch(pattern, folder.resolve().name)
    return found.group(1) if found else ""


_THREE = ("train", "dev", "test")
LAYOUTS = {
    "commonvoice": Layout(
        "Common Voice",
        "train.tsv, dev.tsv, test.tsv and clips/",
        "{split}.tsv",
        ("clips",),
        (*_THREE, "validated", "other", "invalidated"),
        _THREE,
        "\t",
        True,
        Names("path", "sentence", speaker="client_id"),
        _clip,
        lambda _, row: row.cells.get("locale"),
    ),
    "ljspeech": Layout(
        "the LJSpeech corpus",
        "metadata.csv and wavs/",
        "metadata.csv",
        ("wavs",),
        ("train",),
        ("train",),
        "|",
        False,
        Names("1", "2"),
        _wav,
        lambda *_: None,
    ),
    "mls": Layout(
        "MLS",
        "train/transcripts.txt and train/audio/",
        "{split}/transcripts.txt",
        _THREE,
        _THREE,
        _THREE,
        "\t",
        False,
        Names("1", "2"),
        _chapter_file,
        lambda folder, _: _in_name(r"mls_([a-z]+)(?:_opus)?", folder),
    ),
    "fleurs": Layout(
        "FLEURS",
        "train.tsv, dev.tsv, test.tsv and audio/",
        "{split}.tsv",
        ("audio", *_THREE),
        _THREE,
        _THREE,
        "\t",
        False,
        Names("2", "4"),
        _fleurs_file,
        lambda folder, _: _in_name(r"([a-z]{2,3}(?:_[a-z]{4})?_(?:[a-z]{2}|\d{3}))", folder),
    ),
}


def read_layout(layout: Layout, root: Path, splits: Sequence[str] | None = None) -> Corpus:
    """Read a corpus of :data:`LAYOUTS`.

    Args:
        layout: the layout.
        root: the corpus's folder, or a folder above it that holds only one.
        splits: see :func:`fairseq_skd.corpora.records.choose`.

    Raises:
        UserError: ``root`` holds no such corpus or several, a table cannot be read or lacks a
            column, or a split of ``splits`` does not exist.
    """
    folder = _find(layout, root)
    lists = {split: folder / layout.listing.format(split=split) for split in layout.splits}
    lists = {split: table for split, table in lists.items() if table.is_file()}
    readers = {split: partial(_listed, layout, folder, split, table) for split, table in lists.items()}
    default = [split for split in layout.default if split in lists] or list(lists)
    return gather(layout.title, readers, splits, default, folder)


def _find(layout: Layout, root: Path) -> Path:
    """Find the folder of a corpus: ``root``, or the only one at most two levels below."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder with {layout.shape}")
    for above in ("", "*/", "*/*/"):
        there: dict[Path, None] = {}
        for split in layout.splits:
            listing = layout.listing.format(split=split)
            for table in sorted(root.glob(above + listing)):
                folder = table.parents[listing.count("/")]
                if any((folder / name).is_dir() for name in layout.folders):
                    there[folder] = None
        if len(there) > 1:
            names = ", ".join(str(folder.relative_to(root)) for folder in there)
            raise UserError(f"{root}: holds {len(there)} corpora, {names}; give one of these folders")
        if there:
            return next(iter(there))
    raise UserError(f"{root}: is not {layout.title}; give the folder with {layout.shape}")


def _listed(layout: Layout, folder: Path, split: str, table: Path) -> Iterator[Found]:
    """Read the table of a split."""
    columns, rows = read_rows(table, text_lines(table), layout.delimiter, layout.header, layout.names)
    names = layout.names
    missing = [name for name in names[:2] if name not in columns]
    if missing and rows:
        there = ", ".join(map(repr, columns))
        raise UserError(f"{table}: no column {missing[0]} among {there}, as {layout.title} has; read it as a table")
    for row in rows:
        if layout.delimiter == "|" and len(row.cells) in (2, 3):  # the third text of LJSpeech has numbers in words
            row = Row(row.line, {**row.cells, "2": row.cells.get("3") or row.cells["2"]})
        record, fault = to_record(row, names, split, str(table))
        if not fault:
            path, speaker = layout.place(folder, split, record)
            record = record._replace(path=path, speaker=speaker)
        yield Found(record, fault, layout.language(folder, row))


_METADATA = ("metadata.csv", "metadata.jsonl")
_TEXTS = ("transcription", "text", "sentence", "transcript")
# Names of folders that Hugging Face's datasets take for a split.
_SPLITS = ("train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation")


def read_audiofolder(root: Path, splits: Sequence[str] | None = None) -> Corpus:
    """Read an audio folder of Hugging Face.

    A row belongs to the split whose folder holds its audio (``train``, ``validation``, ``test``,
    ...), otherwise to ``train``.

    Args:
        root: the folder. ``metadata.csv`` or ``metadata.jsonl`` is there or up to two levels below.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes all.

    Raises:
        UserError: ``root`` has no metadata, a table cannot be read or lacks a column, or a split of
            ``splits`` does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder with metadata.csv or metadata.jsonl")
    patterns = [above + name for above in ("", "*/", "*/*/") for name in _METADATA]
    tables = [table for pattern in patterns for table in sorted(root.glob(pattern))]
    if not tables:
        parquet = next((file for above in ("", "*/", "*/*/") for file in root.glob(f"{above}*.parquet")), None)
        if parquet:
            raise UserError(f"{parquet}: Parquet files are not read; write metadata.csv or .jsonl, and audio files")
        raise UserError(f"{root}: holds no metadata.csv or metadata.jsonl; give the folder of the data set")
    found: dict[str, list[Found]] = {}
    for table in tables:
        if table.suffix == ".csv" and table.with_suffix(".jsonl") in tables:
            raise UserError(f"{table}: there is also metadata.jsonl in this folder; remove one of the two")
        for item in _metadata(root, table):
            found.setdefault(item.record.split, []).append(item)
    readers = {split: partial(iter, items) for split, items in found.items()}
    return gather("the audio folder", readers, splits, list(readers), root)


def _metadata(root: Path, table: Path) -> Iterator[Found]:
    folder = table.parent.relative_to(root)
    columns, rows = read_rows(table, text_lines(table), DELIMITERS[table.suffix], names=("file_name", *_TEXTS))
    text = next((name for name in _TEXTS if name in columns), None)
    speaker = "speaker_id" if "speaker_id" in columns else "speaker"
    if rows and ("file_name" not in columns or text is None):
        lacking = "text" if "file_name" in columns else "file_name"
        raise UserError(
            f"{table}: no column {lacking} among {', '.join(map(repr, columns))}; the columns are file_name and "
            f"{' or '.join(_TEXTS)}"
        )
    for row in rows:
        record, fault = to_record(row, Names("file_name", text or "", speaker=speaker), "train", str(table))
        path = (folder / record.path).as_posix() if record.path else ""
        if os.path.isabs(path):  # the folders above the data set are not splits
            path = os.path.relpath(path, os.path.abspath(root))
        split = next((part for part in path.split("/")[:-1] if part.lower() in _SPLITS), "train")
        yield Found(record._replace(path=path, split=split), fault)


def read_audio(root: Path, split: str, left_out: Iterable[Path] = ()) -> Corpus:
    """List all audio files under a folder, without transcripts.

    Args:
        root: the folder. Files and folders whose names begin with a dot are left out.
        split: name of the split.
        left_out: folders to leave out.

    Raises:
        UserError: ``root`` is no folder, or has no audio.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of the audio files")
    seen = {os.path.realpath(folder) for folder in (root, *left_out)}  # links may lead back
    paths: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        kept = {name: os.path.realpath(os.path.join(folder, name)) for name in folders if not name.startswith(".")}
        folders[:] = [name for name, real in kept.items() if real not in seen]
        seen.update(kept.values())
        names = [name for name in files if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith(".")]
        paths += (os.path.relpath(os.path.join(folder, name), root) for name in names)
    if not paths:
        raise UserError(f"{root}: holds no audio ({', '.join(AUDIO_SUFFIXES)}); give the folder of the audio files")
    records = [Record(path, "", split, "", str(root), line) for line, path in enumerate(sorted(paths), start=1)]
    return Corpus("the audio", records, [], root)
