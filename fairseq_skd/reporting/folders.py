"""Read a folder of runs: training logs, summaries of ``infer``, analyses of ``align``."""

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import tracked
from fairseq_skd.scoring.bootstrap import Interval, rate_interval, resampling
from fairseq_skd.scoring.leading import CER, leads
from fairseq_skd.scoring.transcripts import utterance_errors, utterance_speakers

_LINE = re.compile(r"\[(train_inner|valid)\]\[INFO\] - (\{.*\})$")
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Decoded:
    """A summary of ``fairseq_skd.infer``.

    Attributes:
        name: its folder, relative to the folder of runs.
        summary: content of ``summary.json``.
        interval: interval of the leading error rate in percent; None if the texts beside it do not
            match.
        resampled: what the bootstrap draws, see
            :func:`~fairseq_skd.scoring.bootstrap.resampling`.
    """

    name: str
    summary: dict[str, Any]
    interval: Interval | None
    resampled: dict[str, Any]


@dataclass(frozen=True)
class Aligned:
    """An analysis of ``fairseq_skd.align``; ``folder`` holds its figures and examples."""

    name: str
    folder: Path
    found: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The curves of a training."""

    name: str
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Runs:
    """All results of a folder, each kind in order of names."""

    trained: list[Trained]
    decoded: list[Decoded]
    aligned: list[Aligned]


def read_runs(folder: Path) -> Runs:
    """Search a folder and all folders below it for results.

    Incomplete results, and files with our names from another program, are left out and named on
    stderr.

    Raises:
        UserError: the folder does not exist, or holds no results.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder that holds the runs")
    trained = []
    for path in tracked(list(_files(folder, "hydra_train.log")), "reading logs", "log"):
        try:
            trained.append(Trained(_name(folder, path), read_log(path)))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    decoded = [
        Decoded(_name(folder, path), found, *error_interval(path.parent, found))
        for path, found in tracked(
            list(_records(folder, "summary.json", "exit_layer")), "reading transcripts", "folder"
        )
    ]
    aligned = [
        Aligned(_name(folder, path), path.parent, found)
        for path, found in _records(folder, "align.json", "spike_disagreement")
    ]
    _tell_of_incomplete(folder)
    if not (trained or decoded or aligned):
        raise UserError(
            f"{folder} holds no hydra_train.log, no summary.json of fairseq_skd.infer, no align.json of "
            f"fairseq_skd.align: give the folder that holds the runs"
        )
    return Runs(trained, decoded, aligned)


def read_log(path: Path) -> dict[str, Curve]:
    """Read the curves of a training from its log.

    If a training was cut off and resumed from an earlier checkpoint, the log has some updates
    twice; the last ones count.

    Args:
        path: output or hydra_train.log of a training with ``common.log_format=json``.

    Returns:
        name -> (update, value) pairs in order of updates; names of validation begin with
        ``valid_``.

    Raises:
        UserError: the file does not exist, or has no JSON log lines.
    """
    if not path.is_file():
        raise UserError(f"log {path} does not exist: give the hydra_train.log of a training")
    curves: dict[str, Curve] = {}
    reached = -math.inf
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _entry(line)
        updates = _number(entry.get("num_updates", entry.get("valid_num_updates")))
        if updates < reached:  # resumed from here: drop the later points of the earlier run
            earlier = {name: [point for point in curve if point[0] < updates] for name, curve in curves.items()}
            curves = {name: curve for name, curve in earlier.items() if curve}
        reached = updates if not math.isnan(updates) else reached
        for name, value in entry.items():
            number = _number(value)
            if not math.isnan(updates) and math.isfinite(number):
                curves.setdefault(name, []).append((updates, number))
    if not curves:
        raise UserError(f"log {path} has no JSON lines: train with common.log_format=json")
    return curves


def error_interval(folder: Path, summary: dict[str, Any]) -> tuple[Interval | None, dict[str, Any]]:
    """Bootstrap the leading error rate of the texts in ``folder``.

    Returns:
        the interval in percent and what the bootstrap draws; None, with a line on stderr, if the
        texts are missing or do not match the summary; None without a line, if there were no
        references.
    """
    if "wer" not in summary:
        return None, {}
    try:
        counts = utterance_errors(folder, characters=leads(summary) == CER)
        speakers = utterance_speakers(folder, Path(summary["manifest"]))
    except UserError as error:
        print(f"no interval: {error}", file=sys.stderr)
        return None, {}
    found = rate_interval([count.errors for count in counts], [count.total for count in counts], speakers)
    return Interval(*(100 * bound for bound in found)), resampling(speakers)


def _files(folder: Path, name: str) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob(name) if path.is_file())


def _records(folder: Path, name: str, key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the JSON files of a name that hold ``key``; other programs' files do not."""
    for path in _files(folder, name):
        found = json.loads(path.read_text(encoding="utf-8"))
        if key in found:
            yield path, found
        else:
            print(f"left out: {path} was not written by fairseq_skd", file=sys.stderr)


def _tell_of_incomplete(folder: Path) -> None:
    """Name folders without the file that is written last: the command was killed."""
    for first, last in (("hypo.word", "summary.json"), ("example-*.flac", "align.json")):
        for place in sorted({path.parent for path in _files(folder, first)}):
            if not (place / last).is_file():
                print(f"left out: {place} is incomplete, it has no {last}", file=sys.stderr)


def _name(folder: Path, path: Path) -> str:
    inside = path.parent.relative_to(folder).as_posix()
    return folder.resolve().name if inside == "." else inside


def _entry(line: str) -> dict[str, Any]:
    match = _LINE.search(line)
    try:
        return json.loads(match[2]) if match else {}
    except ValueError:  # a line cut off by a kill; a resumed run writes on behind it
        return {}


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
