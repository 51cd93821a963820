"""The keys of ``config/align``: the section align; task, common, common_eval and dataset are those of infer."""

from dataclasses import dataclass

from fairseq_skd.decoding.config import CommonSettings, DatasetSettings, TaskSettings
from fairseq_skd.errors import UserError
from fairseq_skd.files.units import POST_PROCESSES
from fairseq_skd.typed_settings import Sections, key


@dataclass(frozen=True)
class AlignKeys:
    """What is compared, and what is drawn."""

    layer: int | None = key(
        None,
        "exit of the student in common_eval.path; 0: the full model; null: its only student, or with a separate "
        "teacher the full model",
        least=0,
    )
    teacher_path: str | None = key(None, "checkpoint of a separate teacher; null: common_eval.path is both")
    teacher_layer: int = key(0, "exit of the teacher; 0: the full model", least=0)
    history: str | None = key(
        None, "folder with checkpoint_<epoch>_<update>.pt or checkpoint<epoch>.pt: agreement against updates"
    )
    examples: list[int] | None = key(
        None,
        "utterances to draw and to keep for the report, by place in the manifest from 0; null: the first three",
        least=0,
    )
    resamples: int = key(10_000, "draws of the bootstrap; their seed is common.seed", least=1)


@dataclass(frozen=True)
class CheckpointSettings:
    """Which model; the last one of ``align.history`` where none is given."""

    path: str | None = key(None, "checkpoint of the student, and of the teacher unless align.teacher_path is set")
    post_process: str | None = key(
        None,
        f"of the texts over the figures: {', '.join(POST_PROCESSES[:-1])}; null: the checkpoint's",
        among=POST_PROCESSES,
    )
    results_path: str | None = key(None, "folder of the results; null: align/<gen_subset>")


@dataclass(frozen=True)
class AlignSettings(Sections):
    """The whole configuration, checked."""

    task: TaskSettings = TaskSettings()
    common: CommonSettings = CommonSettings()
    common_eval: CheckpointSettings = CheckpointSettings()
    dataset: DatasetSettings = DatasetSettings()
    align: AlignKeys = AlignKeys()

    def __post_init__(self) -> None:
        if not self.common_eval.path and self.align.history is None:
            raise UserError("common_eval.path is not set: give a fine-tuned checkpoint, or align.history=DIR")
