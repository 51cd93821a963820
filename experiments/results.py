"""Read results.jsonl of a grid that was run once or several times."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.grid import Grid, Model
from fairseq_skd.errors import UserError

# Keys that differ between runs of one arm, by seed or machine. Data and encoder have hashes.
_OF_A_RUN = {
    *("common.seed", "checkpoint.save_dir", "hydra.run.dir", "criterion.teacher_path", "+criterion.teacher_path"),
    *("task.data", "task.label_dir", "model.w2v_path"),
}


class Repetition(NamedTuple):
    """One run of every arm: the place of its results file, from 0, and the seed."""

    file: int
    seed: int


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        parameters: exit -> parameters used to decode.
        rates: (kind, exit) -> subset -> percent. A kind is ``wer``, ``cer``, ``spikes`` (spike
            disagreement) or ``same_frame`` (matched spikes on the teacher's frame).
    """

    corpus: str
    arm: str
    command: str
    data_sha256: str
    encoder_sha256: str
    seed: int
    updates: int
    parameters: Mapping[int, int]
    rates: Mapping[tuple[str, int], Mapping[str, float]]


Results = dict[Repetition, dict[str, Result]]  # repetition -> arm -> its result


def read_results(files: Sequence[Path], grid: Grid) -> Results:
    """Read the lines of a grid's arms; lines of other arms or another corpus are skipped.

    Raises:
        UserError: a file is missing, has a damaged line or repeats a line; or two runs cannot be
            compared: data or encoder differ, or the number of updates of one arm.
    """
    found: Results = {}
    seen: dict[str, str] = {}  # line -> its place
    for number, file in enumerate(files):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read: give a results.jsonl of run_grid") from error
        for at, line in enumerate(lines, 1):
            here = f"{file}, line {at}"
            try:
                result = _result(line)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{here} is damaged: it is not a result of run_grid") from error
            if result.corpus != grid.corpus or result.arm not in grid.arms:
                continue
            if line in seen:
                raise UserError(f"{here} repeats {seen[line]}: give each run once")
            seen[line] = here
            arms = found.setdefault(Repetition(number, result.seed), {})
            if result.arm in arms:
                raise UserError(f"{file} has {result.arm} of seed {result.seed} twice: remove one line")
            _check_comparable(result, found, here)
            arms[result.arm] = result
    if not found:
        names = ", ".join(map(str, files))
        raise UserError(f"{names}: no result on {grid.corpus} of the arms {', '.join(grid.arms)}")
    return dict(sorted(found.items()))


def _check_comparable(result: Result, found: Results, here: str) -> None:
    for other in (other for arms in found.values() for other in arms.values()):
        for key in ("data_sha256", "encoder_sha256", *(["updates"] if other.arm == result.arm else [])):
            if getattr(result, key) != getattr(other, key):
                of = f"{other.arm} of seed {other.seed}"
                raise UserError(f"{here}: {key} differs from {of}, so the two cannot be compared: give other files")


def _result(line: str) -> Result:
    found = json.loads(line, parse_constant=int)  # refuses NaN
    texts = {key: _take(found, key, str) for key in ("corpus", "arm", "command", "data_sha256", "encoder_sha256")}
    numbers = {key: _take(found, key, int) for key in ("seed", "updates")}
    rates: dict[tuple[str, int], dict[str, float]] = {}
    parameters: dict[int, int] = {}
    for score in _take(found, "scores", list):
        parameters[_take(score, "exit", int)] = _take(score, "parameters", int)
        for kind in ("wer", "cer"):
            by_subset = rates.setdefault((kind, _take(score, "exit", int)), {})
            by_subset[_take(score, "subset", str)] = _take(score, kind, int, float)
    for one in _take(found, "alignment", list):
        value = _take(one["spike_disagreement"], "value", int, float, type(None))
        layer, subset = _take(one, "exit", int), _take(one, "subset", str)
        if value is not None:  # the teacher has spikes
            rates["spikes", layer] = {subset: 100 * value}
        same = _take(one["offset"]["within_ms"], "0", int, float, type(None))
        if same is not None:  # some spikes match
            rates["same_frame", layer] = {subset: 100 * same}
    return Result(**texts, **numbers, parameters=parameters, rates=rates)


def _take(entry: Any, key: str, *kinds: type) -> Any:
    if type(entry[key]) not in kinds:
        raise TypeError(key)
    return entry[key]


def rates(results: Results, model: Model, kind: str, subset: str) -> dict[Repetition, float]:
    """A rate of a model in percent, for every run that has it.

    Spikes are compared on one subset only, so ``subset`` matters only for ``wer`` and ``cer``.
    """
    measured: dict[Repetition, float] = {}
    for run, arms in results.items():
        found = arms[model.arm].rates.get((kind, model.exit), {}) if model.arm in arms else {}
        for measured_on, value in found.items():
            if kind in ("spikes", "same_frame") or measured_on == subset:
                measured[run] = value
    return measured


def mixed(results: Results, files: Sequence[Path]) -> list[str]:
    """Name the arms whose runs have different settings, one sentence each."""
    first: dict[str, tuple[str, set[str]]] = {}
    told = []
    for run, arms in results.items():
        name = f"seed {run.seed} of {files[run.file]}"
        for arm, result in arms.items():
            settings = _settings(result.command)
            beside, expected = first.setdefault(arm, (name, settings))
            if other := sorted(settings ^ expected):
                told.append(f"{arm}: {beside} and {name} differ in {', '.join(other)}")
    return told


def _settings(command: str) -> set[str]:
    try:
        parts = shlex.split(command)
    except ValueError:  # an open quote
        parts = command.split()
    return {part for part in parts if part.partition("=")[0] not in _OF_A_RUN}
