"""Read the JSON lines of other toolkits: NeMo's manifests, Lhotse's recordings and supervisions."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.layouts import Found, gather
from fairseq_skd.corpora.records import Corpus, Fault, Kind, Record, Segment, common_root
from fairseq_skd.corpora.tables import Names, Row, json_rows, text_lines, to_record
from fairseq_skd.errors import UserError

SLACK = 0.1  # seconds; both toolkits state times of whole files, too, and round them


def _seconds(row: Row, key: str) -> float | None:
    """Return a number of a row; None if it is missing or null.

    Raises:
        ValueError: it is not a finite number.
    """
    value = row.cells.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r}, not a number of seconds")
    return float(value)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text).lstrip("._") or "_"


def read_nemo(manifests: Sequence[Path], splits: Sequence[str] | None = None) -> Corpus:
    """Read manifests of NeMo: JSON lines with ``audio_filepath`` and ``text``.

    ``offset`` and ``duration``, in seconds, make a segment, unless they leave out at most 0.1 s of
    the file: ``duration`` usually is the whole file's. Relative paths start from the manifest's
    folder.

    Args:
        manifests: each is the split that its name tells: ``train_manifest.json`` is ``train``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes all.

    Raises:
        UserError: a manifest cannot be read, two manifests have one name, or a split of ``splits``
            does not exist.
    """
    lists: dict[str, Path] = {}
    for manifest in manifests:
        name = re.sub(r"[-_.]?manifest[-_.]?", "", manifest.stem) or "train"
        if name in lists:
            raise UserError(f"{manifest}: two manifests are named {name}, which names the split; rename one of them")
        lists[name] = manifest
    readers = {name: partial(_nemo_rows, manifest) for name, manifest in lists.items()}
    corpus = gather("the NeMo manifest", readers, splits, list(readers), Path())
    root = common_root(corpus.records, os.getcwd())
    return corpus._replace(root=root, records=[_name_segment(record, root) for record in corpus.records])


def _name_segment(record: Record, root: Path) -> Record:
    """Name a segment, so far named by its times, by its file and its times."""
    if record.segment is None:
        return record
    file = os.path.splitext(os.path.relpath(record.path, root))[0]
    return record._replace(segment=record.segment._replace(name=f"{_file_name(file)}-{record.segment.name}"))


def _nemo_rows(manifest: Path) -> Iterator[Found]:
    start = os.path.abspath(manifest.parent)
    for row in json_rows(manifest, text_lines(manifest)):
        record, fault = to_record(row, Names("audio_filepath", "text"), "train", str(manifest))
        try:
            offset, duration = _seconds(row, "offset") or 0.0, _seconds(row, "duration")
        except ValueError as error:
            offset, duration, fault = 0.0, None, fault or Fault(Kind.ROW, str(error))
        segment = None
        if offset or duration is not None:
            end = None if duration is None else offset + duration
            stop = "end" if end is None else f"{round(100 * end):07d}"
            segment = Segment(f"{round(100 * offset):07d}-{stop}", offset, end, SLACK)
        path = os.path.normpath(os.path.join(start, os.path.expanduser(record.path)))
        yield Found(record._replace(path=path, segment=segment), fault, row.cells.get("lang"))


_LHOTSE = re.compile(r"(?:(?P<prefix>.+)_)?(?P<kind>recordings|supervisions|cuts)(?:_(?P<split>.+))?\.jsonl(?:\.gz)?")
_DECOMPOSE = "write recordings and supervisions with 'lhotse cut decompose CUTS DIR', and give DIR"


class _Recording(NamedTuple):
    """A recording of Lhotse: the file of each channel and the channel's place there, or a fault.

    The place is None if the file has one channel.
    """

    channels: Mapping[int, tuple[str, int | None]]
    fault: Fault | None = None


def read_lhotse(folder: Path, splits: Sequence[str] | None = None, audio_root: Path | None = None) -> Corpus:
    """Read recordings and supervisions of Lhotse, without importing it.

    Args:
        folder: has ``PREFIX_recordings_SPLIT.jsonl.gz`` and ``PREFIX_supervisions_SPLIT.jsonl.gz``.
            The prefix may be missing, as may the split, which then is ``train``, and ``.gz``.
        splits: see :func:`fairseq_skd.corpora.records.choose`; None takes all.
        audio_root: folder that relative paths start from; None means the current folder, as in
            Lhotse.

    Raises:
        UserError: ``folder`` has no such files or only cuts, two pairs have the same split, a file
            cannot be read, or a split of ``splits`` does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of recordings and supervisions")
    files: dict[tuple[str, str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        if named := _LHOTSE.fullmatch(path.name):
            files[named["kind"], named["prefix"] or "", named["split"] or "train"] = path
    start = os.path.abspath(audio_root or ".")
    lists = {}
    for (kind, prefix, split), recordings in files.items():
        supervisions = files.get(("supervisions", prefix, split))
        if kind != "recordings" or supervisions is None:
            continue
        if split in lists:
            raise UserError(f"{recordings}: is a second list of the split {split}; keep one corpus in the folder")
        lists[split] = partial(_supervised, recordings, supervisions, start)
    if not lists:
        cuts = next((path for (kind, _, _), path in files.items() if kind == "cuts"), None)
        if cuts:
            raise UserError(f"{cuts}: cuts are not read; {_DECOMPOSE}")
        raise UserError(
            f"{folder}: holds no PREFIX_recordings_SPLIT.jsonl.gz with PREFIX_supervisions_SPLIT.jsonl.gz; give the "
            "folder of Lhotse's manifests"
        )
    corpus = gather("the Lhotse data", lists, splits, list(lists), Path())
    return corpus._replace(root=common_root(corpus.records, start))


def _supervised(recordings: Path, supervisions: Path, start: str) -> Iterator[Found]:
    """Yield the supervisions with their audio."""
    audio: dict[object, _Recording] = {}
    for row in json_rows(recordings, text_lines(recordings)):
        if row.cells.get("type") in ("MonoCut", "MultiCut", "MixedCut"):
            raise UserError(f"{recordings}: line {row.line} is a cut, not a recording; {_DECOMPOSE}")
        audio[str(row.cells.get("id"))] = _recording(row, start)
    for row in json_rows(supervisions, text_lines(supervisions)):
        names = Names("recording_id", "text")
        record, fault = to_record(row, names, "train", str(supervisions))
        recording = audio.get(record.path)
        if fault is None and recording is None:
            fault = Fault(Kind.UNPAIRED, f"no recording {record.path} in {recordings.name}")
        try:
            begin, duration = _seconds(row, "start") or 0.0, _seconds(row, "duration")
            place = _channel(row, recording) if recording else None
        except ValueError as error:
            begin, duration, place, fault = 0.0, None, None, fault or Fault(Kind.ROW, str(error))
        if recording:
            fault = fault or recording.fault
        if place:
            end = None if duration is None else begin + duration
            segment = Segment(_file_name(str(row.cells.get("id"))), begin, end, SLACK)
            record = record._replace(path=place[0], segment=segment, channel=place[1])
        yield Found(record, fault, row.cells.get("language"))


def _recording(row: Row, start: str) -> _Recording:
    """Find the files of a recording."""
    channels: dict[int, tuple[str, int | None]] = {}
    try:
        if row.cells.get("transforms"):
            raise ValueError("the recording has transforms, which only Lhotse can apply: save its audio there")
        for source in row.cells["sources"]:  # type: ignore[attr-defined]
            kind, path, places = source["type"], source["source"], source["channels"]
            if kind == "command":
                return _Recording({}, Fault(Kind.COMMAND, f"{path} in the recordings, line {row.line}"))
            if kind != "file":
                raise ValueError(f"the audio is of type {kind}, not a file: save it as one")
            path = os.path.normpath(os.path.join(start, path))
            channels |= {channel: (path, None if len(places) == 1 else at) for at, channel in enumerate(places)}
    except (KeyError, TypeError, AttributeError):
        return _Recording({}, Fault(Kind.ROW, f"line {row.line} of the recordings is not a recording of Lhotse"))
    except ValueError as error:
        return _Recording({}, Fault(Kind.ROW, f"{error} (line {row.line} of the recordings)"))
    return _Recording(channels)


def _channel(row: Row, recording: _Recording) -> tuple[str, int | None] | None:
    """Find file and channel of a supervision; all channels of a file are None.

    Raises:
        ValueError: the recording has no such channel, or the channels are in several files.
    """
    if recording.fault:
        return None
    wanted = row.cells.get("channel", 0)
    channels = wanted if isinstance(wanted, list) else [wanted]
    places = [recording.channels.get(channel) for channel in channels if isinstance(channel, int)]
    if not places or len(places) < len(channels) or None in places:
        raise ValueError(f"the recording has no channel {wanted}, only {', '.join(map(str, recording.channels))}")
    files = {place[0] for place in places if place}
    if len(files) > 1:
        raise ValueError(f"channels {wanted} are in several files")
    return places[0] if len(places) == 1 else (files.pop(), None)
