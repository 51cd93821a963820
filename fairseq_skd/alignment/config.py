"""The keys of ``config/align``: the section align, and sections that infer has too."""

from dataclasses import dataclass

from fairseq_skd.decoding.config import CommonSettings, DatasetSettings, TaskSettings
from fairseq_skd.errors import UserError
from fairseq_skd.files.units import POST_PROCESSES
from fairseq_skd.typed_settings import Sections, key


@dataclass(frozen=True)
class AlignKeys:
    """The exits to compare, and the utterances to draw."""

    layer: int | None = key(
        None,
        "exit of the student in common_eval.path; 0: the full model; null: its only student, or the full model if "
        "align.teacher_path is set",
        least=0,
    )
    teacher_path: str | None = key(None, "checkpoint of a separate teacher; null: teacher and student share one")
    teacher_layer: int = key(0, "exit of the teacher; 0: the full model", least=0)
    history: str | None = key(
        None, "folder with checkpoint_<epoch>_<update>.pt or checkpoint<epoch>.pt: agreement against updates"
    )
    examples: list[int] | None = key(
        None,
        "utterances to draw and to keep for the report, by index in the manifest from 0; null: the first three",
        least=0,
    )
    resamples: int = key(10_000, "resamples of the bootstrap; common.seed is its seed", least=1)


@dataclass(frozen=True)
class CheckpointSettings:
    """The checkpoint; without a path it is the last checkpoint of ``align.history``."""

    path: str | None = key(None, "checkpoint of the student, and of the teacher unless align.teacher_path is set")
    post_process: str | None = key(
        None,
        f"how units become words in figure titles: {', '.join(POST_PROCESSES[:-1])}; null: as in the checkpoint",
        among=POST_PROCESSES,
    )
    results_path: str | None = key(None, "folder of the results; null: align/<gen_subset>")


@dataclass(frozen=True)
class AlignSettings(Sections):
    """The whole configuration; :meth:`read` checks it."""

    task: TaskSettings = TaskSettings()
    common: CommonSettings = CommonSettings()
    common_eval: CheckpointSettings = CheckpointSettings()
    dataset: DatasetSettings = DatasetSettings()
    align: AlignKeys = AlignKeys()

    def __post_init__(self) -> None:
        if not self.common_eval.path and self.align.history is None:
            raise UserError("common_eval.path is not set: give a fine-tuned checkpoint, or align.history=DIR")
