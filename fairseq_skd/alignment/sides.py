"""Choose the two exits to compare, and find the checkpoints of a run.

The exits belong to one checkpoint, or to two checkpoints that share frames and dictionary.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.decoding.decode import results_folder
from fairseq_skd.decoding.evaluation_set import EvaluationSet, choose_device, open_set
from fairseq_skd.encoders.checkpoint import load_checkpoint
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import absolute
from fairseq_skd.files.progress import tracked
from fairseq_skd.files.subset import check_audio
from fairseq_skd.models.heads import NoExitError, check_exit
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.recognizer import FramesError, Recognizer, SymbolsError, check_frames, check_symbols

_TEACHER = "align.teacher_path"
_BY_UPDATE = re.compile(r"checkpoint_\d+_(\d+)\.pt")
_BY_EPOCH = re.compile(r"checkpoint\d+\.pt")


class Side(NamedTuple):
    """One exit of a checkpoint."""

    recognizer: Recognizer
    layer: int


class Sides(NamedTuple):
    """Two exits and the subset.

    Attributes:
        teacher: one exit.
        student: the other exit; both share a recognizer if they belong to one checkpoint.
        data: the subset.
        folder: results folder.
    """

    teacher: Side
    student: Side
    data: EvaluationSet
    folder: Path


def choose_sides(settings: AlignSettings, path: str) -> Sides:
    """Open and check the two exits and the subset.

    Args:
        settings: the configuration.
        path: the checkpoint of the student, or of both exits.

    Raises:
        UserError: a checkpoint, the subset or the results folder cannot be used; an exit does not
            exist; both exits are the same; or two checkpoints differ in frames or dictionary.
    """
    keys, (device, dtype) = settings.align, choose_device(settings.common)
    trained = open_trained(path)
    if keys.teacher_path is None:
        taught, teaching = _exits_of_one(trained, keys.layer, keys.teacher_layer)
    else:
        taught = _exit(trained, keys.layer or 0, "align.layer")
    data = open_set(settings.task, settings.dataset, settings.common_eval.post_process, trained)
    check_audio(data.subset, trained.waveforms.sample_rate, trained.waveforms.shortest)
    folder = results_folder(settings.common_eval.results_path or os.path.join("align", settings.dataset.gen_subset))
    if keys.teacher_path is None:
        both = Recognizer(trained, (teaching, taught), device, dtype)
        return Sides(Side(both, teaching), Side(both, taught), data, folder)
    try:
        teacher = open_trained(absolute(keys.teacher_path))
        taught_by = open_set(settings.task, settings.dataset, settings.common_eval.post_process, teacher)
    except UserError as error:
        raise UserError(f"{_TEACHER}: {error}") from error
    try:
        check_symbols(taught_by.dictionary.symbols, data.dictionary.symbols)
    except SymbolsError as error:  # each has the dictionary of its own task.labels
        raise UserError(f"{teacher.path} and {trained.path} cannot be compared: {error}") from error
    teaching = _exit(teacher, keys.teacher_layer, "align.teacher_layer")
    if teaching == taught and Path(teacher.path).samefile(trained.path):
        raise UserError(
            f"align.teacher_path and common_eval.path are both exit {taught} of {path}: choose another exit with "
            f"align.layer or align.teacher_layer"
        )
    student = Side(Recognizer(trained, (taught,), device, dtype), taught)
    sides = Sides(Side(Recognizer(teacher, (teaching,), device, dtype), teaching), student, data, folder)
    _check_comparable(sides)
    return sides


def _exits_of_one(trained: TrainedModel, layer: int | None, teacher_layer: int) -> tuple[int, int]:
    """Return the exits of student and teacher."""
    teaching = _exit(trained, teacher_layer, "align.teacher_layer")
    if layer is None:
        if len(trained.students) != 1:
            if trained.students:
                raise UserError(f"{trained.path} has the students {trained.students}: choose one with align.layer=...")
            raise UserError(f"{trained.path} has no student: give a separate teacher with align.teacher_path=...")
        layer = trained.students[0]
    taught = _exit(trained, layer, "align.layer")
    if taught == teaching:
        raise UserError(f"align.layer and align.teacher_layer are both exit {taught} of {trained.path}: choose two")
    return taught, teaching


def _exit(trained: TrainedModel, layer: int, key: str) -> int:
    try:
        return check_exit(layer, trained.students, trained.depth)
    except NoExitError as error:
        raise UserError(f"{key}={layer}: {trained.path}: {error}") from error


def _check_comparable(sides: Sides) -> None:
    teacher, student = sides.teacher.recognizer, sides.student.recognizer
    paths = f"{teacher.path} and {student.path}"
    lengths = [1000 * side.frame_seconds for side in (teacher, student)]
    if lengths[0] != lengths[1]:
        raise UserError(f"{paths} cannot be compared: they have a frame every {lengths[0]:g} and {lengths[1]:g} ms")
    try:
        check_frames(teacher.frame_grid, student.frame_grid)
    except FramesError as error:
        raise UserError(f"{paths} cannot be compared: {error}") from error


def kept_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Find ``checkpoint_<epoch>_<update>.pt`` and ``checkpoint<epoch>.pt``.

    Returns:
        (updates done, file), in order of updates; one file per update.

    Raises:
        UserError: the folder does not exist, holds no such file, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"align.history={folder} is not a folder: give the save_dir of a training")
    found: dict[int, Path] = {}
    kept = []
    for path in sorted(folder.iterdir()):
        if _BY_UPDATE.fullmatch(path.name) or _BY_EPOCH.fullmatch(path.name):
            kept.append(path)
    # Read all of them first: a damaged one found later would lose the results of earlier ones.
    for path in tracked(kept, "reading checkpoints", "checkpoint"):
        state = load_checkpoint(path)
        match = _BY_UPDATE.fullmatch(path.name)
        updates = int(match[1]) if match else _updates(path, state)
        if match or updates not in found:
            found[updates] = path
    if not found:
        raise UserError(
            f"align.history={folder} keeps no checkpoint of an update or epoch: train with "
            f"checkpoint.save_interval_updates=N or checkpoint.no_epoch_checkpoints=false"
        )
    return sorted(found.items())


def _updates(path: Path, state: dict[str, Any]) -> int:
    """Read the number of updates of an epoch's checkpoint; its file name does not have it."""
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    if type(updates) is not int:
        raise UserError(f"{path} does not say after how many updates it was saved: remove it from align.history")
    return updates
