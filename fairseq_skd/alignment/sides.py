"""Choose two exits to compare: of one checkpoint, or of two checkpoints that share frames and dictionary."""

import os
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.decoding.decode import results_folder
from fairseq_skd.decoding.evaluation_set import EvaluationSet, choose_device, open_set
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import absolute
from fairseq_skd.files.subset import check_audio
from fairseq_skd.models.heads import NoExitError, check_exit
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.recognizer import FramesError, Recognizer, SymbolsError, check_frames, check_symbols

_TEACHER = "align.teacher_path"


class Side(NamedTuple):
    """One exit of a checkpoint."""

    recognizer: Recognizer
    layer: int


class Sides(NamedTuple):
    """Two exits and the subset.

    Attributes:
        teacher: one exit.
        student: another; it has the teacher's recognizer where one checkpoint is both.
        data: the subset.
        folder: of the results.
    """

    teacher: Side
    student: Side
    data: EvaluationSet
    folder: Path


def choose_sides(settings: AlignSettings, path: str) -> Sides:
    """Open and check what is compared.

    Args:
        settings: the configuration.
        path: the checkpoint of the student, or of both.

    Raises:
        UserError: a checkpoint, subset or results folder that cannot be used, an exit that is not there, twice the same
            exit, or two checkpoints of different frames or dictionaries.
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
        raise UserError(f"{_TEACHER}={keys.teacher_path}: {error}") from error
    try:
        check_symbols(taught_by.dictionary.symbols, data.dictionary.symbols)
    except SymbolsError as error:  # each has the dictionary of its own task.labels
        raise UserError(f"{teacher.path} and {trained.path} cannot be compared: {error}") from error
    teaching = _exit(teacher, keys.teacher_layer, "align.teacher_layer")
    if teaching == taught and Path(teacher.path).samefile(trained.path):
        raise UserError(f"align.teacher_path and common_eval.path are both {path}, and both its exit {taught}")
    student = Side(Recognizer(trained, (taught,), device, dtype), taught)
    sides = Sides(Side(Recognizer(teacher, (teaching,), device, dtype), teaching), student, data, folder)
    _check_comparable(sides)
    return sides


def _exits_of_one(trained: TrainedModel, layer: int | None, teacher_layer: int) -> tuple[int, int]:
    """The student's exit and the teacher's."""
    teaching = _exit(trained, teacher_layer, "align.teacher_layer")
    if layer is None:
        if len(trained.students) != 1:
            if trained.students:
                raise UserError(f"{trained.path} has the students {trained.students}: choose one with align.layer=...")
            raise UserError(f"{trained.path} has no student: give a separate teacher with align.teacher_path=...")
        layer = trained.students[0]
    taught = _exit(trained, layer, "align.layer")
    if taught == teaching:
        raise UserError(f"align.layer and align.teacher_layer are both the exit of {taught} layers of {trained.path}")
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
        raise UserError(f"{paths} have a frame every {lengths[0]:g} and {lengths[1]:g} ms: they cannot be compared")
    try:
        check_frames(teacher.frame_grid, student.frame_grid)
    except FramesError as error:
        raise UserError(f"{paths} cannot be compared: {error}") from error
