"""Who is compared with whom: one checkpoint's exits, or exits of two checkpoints that share frames and dictionary."""

from pathlib import Path
from typing import NamedTuple

from fairseq_skd.alignment.configuration import AlignSettings
from fairseq_skd.alignment.posteriors import frame_seconds
from fairseq_skd.decoding.decode import Plan, prepare
from fairseq_skd.decoding.settings import CommonEvalSettings, DecodingSettings, Settings
from fairseq_skd.encoders.exits import check_decode_layer
from fairseq_skd.errors import UserError

_TEACHER = "align.teacher_path"


class Side(NamedTuple):
    """One exit of a checkpoint."""

    plan: Plan
    layer: int


class Sides(NamedTuple):
    """The teacher, and the student that is compared with it; one plan for both where one checkpoint is both."""

    teacher: Side
    student: Side


def choose_sides(settings: AlignSettings, path: str) -> Sides:
    """Open and check what is compared.

    Args:
        settings: the configuration.
        path: the checkpoint of the student, or of both.

    Raises:
        UserError: what :func:`~fairseq_skd.decoding.decode.prepare` refuses, an exit that is not there, twice the same
            exit, or two checkpoints of different frames or dictionaries.
    """
    keys = settings.align
    if keys.teacher_path is None:
        return _one_checkpoint(settings, path)
    student = _prepare(settings, path, keys.layer or 0, "align.layer")
    try:
        teacher = _prepare(settings, keys.teacher_path, keys.teacher_layer, "align.teacher_layer", _TEACHER)
    except UserError as error:
        named = _TEACHER in str(error)
        raise UserError(str(error) if named else f"{_TEACHER}={keys.teacher_path}: {error}") from error
    _check_comparable(teacher, student)
    if teacher.exit_layer == student.exit_layer and Path(teacher.trained.path).samefile(student.trained.path):
        raise UserError(
            f"align.teacher_path and common_eval.path are both {path}, and both its exit {student.exit_layer}"
        )
    return Sides(Side(teacher, teacher.exit_layer), Side(student, student.exit_layer))


def _one_checkpoint(settings: AlignSettings, path: str) -> Sides:
    keys = settings.align
    plan = _prepare(settings, path, keys.teacher_layer, "align.teacher_layer")
    students, depth = plan.trained.students, plan.trained.depth
    layer = keys.layer
    if layer is None:
        if len(students) != 1:
            if students:
                raise UserError(f"{path} has the students {students}: choose one with align.layer=...")
            raise UserError(f"{path} has no student: give a separate teacher with align.teacher_path=...")
        layer = students[0]
    layer = check_decode_layer(layer, students, depth, "align.layer")
    if layer == plan.exit_layer:
        raise UserError(f"align.layer and align.teacher_layer are both the exit of {layer} layers of {path}")
    return Sides(Side(plan, plan.exit_layer), Side(plan, layer))


def _prepare(
    settings: AlignSettings, path: str, layer: int, layer_key: str, path_key: str = "common_eval.path"
) -> Plan:
    given = settings.common_eval
    folder = given.results_path or str(Path("align") / settings.dataset.gen_subset)
    common_eval = CommonEvalSettings(path, given.post_process, results_path=folder)
    decoding = DecodingSettings(layer=layer)
    decode = Settings(settings.task, settings.common, common_eval, settings.dataset, decoding)
    return prepare(decode, layer_key, path_key)


def _check_comparable(teacher: Plan, student: Plan) -> None:
    paths = f"{teacher.trained.path} and {student.trained.path}"
    lengths = [1000 * frame_seconds(plan) for plan in (teacher, student)]
    if lengths[0] != lengths[1]:
        raise UserError(f"{paths} have a frame every {lengths[0]:g} and {lengths[1]:g} ms: they cannot be compared")
    grids = [plan.trained.encoder.frame_grid for plan in (teacher, student)]
    if grids[0] != grids[1]:
        raise UserError(f"{paths} make other frames of the same audio ({grids[0]} against {grids[1]})")
    ours, theirs = teacher.dictionary.symbols, student.dictionary.symbols
    if ours != theirs:
        raise UserError(f"{paths} have different dictionaries, of {len(ours)} and {len(theirs)} symbols")
