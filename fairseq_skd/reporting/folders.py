"""What lies in a folder of runs: logs of training, summaries of ``infer``, analyses of ``align``."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_skd.decoding.subset import read_lines
from fairseq_skd.errors import UserError
from fairseq_skd.reporting.logs import Curve, read_log
from fairseq_skd.scoring.bootstrap import Interval, rate_interval
from fairseq_skd.scoring.errors import ErrorCount, count_errors

_SUMMARY = ("wer", "cer", "word_errors", "words", "exit_layer", "layers", "parameters", "manifest", "checkpoint")
_ALIGN = ("frame_disagreement", "spike_disagreement", "offset", "teacher", "student", "examples", "figures", "frame_ms")


@dataclass(frozen=True)
class Decoded:
    """A summary of ``fairseq_skd.infer``; ``interval`` of its WER in percent if the texts beside it tell it."""

    name: str
    summary: dict[str, Any]
    interval: Interval | None


@dataclass(frozen=True)
class Aligned:
    """An analysis of ``fairseq_skd.align`` and the folder of its files."""

    name: str
    folder: Path
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
        Decoded(_name(folder, path), found, wer_interval(path.parent, found))
        for path, found in _records(folder, "summary*.json", _SUMMARY)
    ]
    aligned = [
        Aligned(_name(folder, path), path.parent, found) for path, found in _records(folder, "align.json", _ALIGN)
    ]
    if not (trained or decoded or aligned):
        raise UserError(
            f"{folder} holds no hydra_train.log, no summary.json of fairseq_skd.infer, no align.json of "
            f"fairseq_skd.align: give the folder that holds the runs"
        )
    return Runs(trained, decoded, aligned)


def wer_interval(folder: Path, summary: dict[str, Any]) -> Interval | None:
    """Bootstrap interval of the WER in percent, from ``hypo.word`` and ``ref.word``; None if they are another run's."""
    try:
        counts = utterance_errors(folder)
    except UserError:
        return None
    if sum(counts, ErrorCount(0, 0)) != (summary["word_errors"], summary["words"]):
        return None
    found = rate_interval([count.errors for count in counts], [count.total for count in counts])
    return Interval(*(100 * bound for bound in found))


def utterance_errors(folder: Path) -> list[ErrorCount]:
    """Word errors of each utterance that ``fairseq_skd.infer`` decoded into a folder, in the manifest's order.

    Raises:
        UserError: ``hypo.word`` or ``ref.word`` is missing, is empty, or is not as long as the other.
    """
    files = [folder / name for name in ("hypo.word", "ref.word")]
    try:
        texts = [[text.split() for text in read_texts(file)] for file in files]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; decode into {folder} again") from error
    if len(texts[0]) != len(texts[1]) or not texts[0]:
        raise UserError(f"{files[0]} has {len(texts[0])} lines, {files[1]} {len(texts[1])}: decode into {folder} again")
    return [count_errors(hypothesis, reference) for hypothesis, reference in zip(*texts, strict=True)]


def read_texts(file: Path) -> list[str]:
    """Lines of ``hypo.word`` or ``ref.word`` without the place in the manifest that each ends with.

    Raises:
        OSError: the file cannot be read.
        UserError: not UTF-8.
    """
    return [line.rpartition(" (")[0] for line in read_lines(file)]


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


def _name(folder: Path, path: Path) -> str:
    inside = path.parent.relative_to(folder).as_posix()
    return folder.resolve().name if inside == "." else inside
