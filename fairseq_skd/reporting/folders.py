"""What lies in a folder of runs: logs of training, summaries of ``infer``, analyses of ``align``."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_skd.errors import UserError
from fairseq_skd.reporting.logs import Curve, read_log
from fairseq_skd.scoring.bootstrap import Interval, rate_interval, resampling
from fairseq_skd.scoring.errors import ErrorCount
from fairseq_skd.scoring.texts import utterance_errors, utterance_speakers

_SUMMARY = ("wer", "cer", "word_errors", "words", "exit_layer", "layers", "parameters", "manifest", "checkpoint")
_ALIGN = ("frame_disagreement", "spike_disagreement", "offset", "teacher", "student", "examples", "figures", "frame_ms")


@dataclass(frozen=True)
class Decoded:
    """A summary of ``fairseq_skd.infer``.

    Attributes:
        interval: of its WER in percent; None if the texts beside it do not tell it.
        resampled: what the interval draws, see :func:`~fairseq_skd.scoring.bootstrap.resampling`.
    """

    name: str
    file: Path
    summary: dict[str, Any]
    interval: Interval | None
    resampled: dict[str, Any]


@dataclass(frozen=True)
class Aligned:
    """An analysis of ``fairseq_skd.align``, beside whose ``file`` its figures and examples lie."""

    name: str
    file: Path
    found: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A training run's curves."""

    name: str
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Runs:
    """All of it, each kind in order of names."""

    trained: list[Trained]
    decoded: list[Decoded]
    aligned: list[Aligned]


def read_runs(folder: Path) -> Runs:
    """Search a folder and those below it.

    Files of these names that something else wrote are left out, and named on stderr.

    Raises:
        UserError: no such folder, or nothing of ours in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the one that holds the runs")
    trained = []
    for path in _files(folder, "hydra_train.log"):
        try:
            trained.append(Trained(_name(folder, path), read_log(path)))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    decoded = [
        Decoded(_name(folder, path), path, found, *wer_interval(path.parent, found))
        for path, found in _records(folder, "summary*.json", _SUMMARY)
    ]
    aligned = [Aligned(_name(folder, path), path, found) for path, found in _records(folder, "align.json", _ALIGN)]
    _tell_of_incomplete(folder)
    if not (trained or decoded or aligned):
        raise UserError(
            f"{folder} holds no hydra_train.log, no summary.json of fairseq_skd.infer, no align.json of "
            f"fairseq_skd.align: give the folder that holds the runs"
        )
    return Runs(trained, decoded, aligned)


def wer_interval(folder: Path, summary: dict[str, Any]) -> tuple[Interval | None, dict[str, Any]]:
    """Bootstrap interval of the WER in percent, from ``hypo.word`` and ``ref.word``, and what it draws.

    None, which is told on stderr, if they are missing or are another run's.
    """
    try:
        counts = utterance_errors(folder)
        speakers = utterance_speakers(folder, Path(str(summary["manifest"])))
    except UserError as error:
        print(f"no interval: {error}", file=sys.stderr)
        return None, {}
    if sum(counts, ErrorCount(0, 0)) != (summary["word_errors"], summary["words"]):
        print(f"no interval: hypo.word and ref.word in {folder} are not those of its summary", file=sys.stderr)
        return None, {}
    found = rate_interval([count.errors for count in counts], [count.total for count in counts], speakers)
    return Interval(*(100 * bound for bound in found)), resampling(speakers)


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob(pattern) if path.is_file())


def _records(folder: Path, pattern: str, keys: tuple[str, ...]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in _files(folder, pattern):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and all(key in found for key in keys):
            yield path, found
        else:
            print(f"left out: {path} is not what fairseq_skd writes under this name", file=sys.stderr)


def _tell_of_incomplete(folder: Path) -> None:
    """Name the folders whose last file is missing: the command that writes it last was killed."""
    for first, last in (("hypo.word", "summary*.json"), ("example-*.flac", "align.json")):
        for place in sorted({path.parent for path in _files(folder, first)}):
            if not any(place.glob(last)):
                print(f"left out: {place} is incomplete, it has no {last.replace('*', '')}", file=sys.stderr)


def _name(folder: Path, path: Path) -> str:
    inside = path.parent.relative_to(folder).as_posix()
    return folder.resolve().name if inside == "." else inside
