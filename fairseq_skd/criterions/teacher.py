"""A separate teacher: a frozen recognizer that runs on the training batches."""

from collections.abc import Mapping
from typing import Any

from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.encoders.pretrained import section
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.disk import absolute
from fairseq_skd.models.config import keep, root_of
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.recognizer import FramesError, Recognizer, SymbolsError, check_frames, check_symbols
from fairseq_skd.training.resuming import resumed_from, settings_of

KEY = "criterion.teacher_path"


class FrozenTeacher:
    """A fine-tuned model at its full depth, in evaluation mode, without masks or gradients.

    An utterance has the same logits in every batch and when the model transcribes it.

    Attributes:
        recognizer: the teacher.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._fits: Any = None  # the student whose frame grid was checked

    @classmethod
    def open(cls, cfg: Any, task: FairseqTask) -> "FrozenTeacher":
        """Read ``cfg.teacher_path``; its hash goes into the configuration that fairseq saves.

        Raises:
            UserError: the file is not a checkpoint of model ``skd_ctc``; its dictionary, sampling
                rate or audio scaling differ from the task's; its weights are NaN or Inf; or a
                resumed run began with another teacher.
        """
        try:
            trained = open_trained(absolute(cfg.teacher_path))
            _check_task(trained, task)
            recognizer = Recognizer(trained, (0,), "cpu")  # moved at the first batch
        except UserError as error:
            raise UserError(f"{KEY}: {error}") from error
        _remember(cfg, recognizer.sha256)
        return cls(recognizer)

    def __call__(self, net_input: Mapping[str, Any], student: Any) -> Tensor:
        """Run the teacher on the student's batch; returns (T, B, V) logits.

        Raises:
            UserError: teacher and student divide the same audio into different frames.
        """
        parameter = next(student.parameters())
        if self._fits is not student:
            try:
                check_frames(self.recognizer.frame_grid, student.w2v_encoder.frame_grid)
            except FramesError as error:
                raise UserError(
                    f"{KEY}: teacher and model cannot be compared frame by frame, {error}: give another teacher"
                ) from error
            self._fits = student
        if (self.recognizer.device, self.recognizer.dtype) != (parameter.device, parameter.dtype):
            self.recognizer.to(parameter.device, parameter.dtype)
        (logits,) = self.recognizer(net_input["source"], net_input.get("padding_mask")).logits.values()
        return logits


def _check_task(trained: TrainedModel, task: FairseqTask) -> None:
    ours, theirs = list(task.target_dictionary.symbols), trained.dictionary
    unnamed = (ours + ["unnamed"] * trained.symbols)[: trained.symbols]  # no dictionary: compare V only
    try:
        check_symbols(theirs.symbols if theirs is not None else unnamed, ours)
    except SymbolsError as error:
        raise UserError(
            f"{trained.path} was trained with another dictionary than the one in task.data "
            f"({error.sizes[0]} and {error.sizes[1]} symbols; "
            f"{error.difference.describe('the teacher', 'the task')}): give a teacher with the same symbols in the "
            f"same order"
        ) from error
    for key, value in (("normalize", trained.encoder.normalize), ("sample_rate", trained.encoder.sample_rate)):
        if getattr(task.cfg, key, value) != value:
            raise UserError(
                f"{trained.path} was trained with task.{key}={value}, not {getattr(task.cfg, key)}: give a teacher "
                f"trained with the same value"
            )


def _remember(cfg: Any, sha256: str) -> None:
    """Keep the teacher's hash for fairseq's checkpoints, and check the hash of a resumed run."""
    root = root_of(cfg)
    if root is None:
        return
    resumed = resumed_from(root)
    before = section(settings_of(resumed), "criterion").get("teacher_sha256") if resumed else None
    if before not in (None, sha256):
        raise UserError(
            f"{KEY}={cfg.teacher_path} is not the teacher that {resumed} was trained with (its SHA-256 begins with "
            f"{sha256[:12]}, not {shown(before, 12)}): give that teacher, or another checkpoint.save_dir"
        )
    keep(cfg, "criterion", "teacher_sha256", sha256)
