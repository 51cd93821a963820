"""A separate teacher: read from a fine-tuned checkpoint, frozen, and outside every module tree."""

from collections.abc import Mapping
from typing import Any

import torch
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.dictionaries import first_difference
from fairseq_skd.encoders.pretrained import section
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files import absolute, file_hash
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.trained import build_model, open_trained
from fairseq_skd.resuming import resumed_from, settings_of
from fairseq_skd.saved_config import keep, root_of

KEY = "criterion.teacher_path"


class FrozenTeacher:
    """Logits of a fine-tuned model at its full depth, in evaluation mode, without masks and without gradients.

    An utterance has the same logits in any batch, as when the model transcribes it.

    It is no ``torch.nn.Module``: a module that a criterion holds gives it parameters, which fairseq saves in every
    checkpoint, wraps for data-parallel training and hands to the optimiser.

    Attributes:
        model: the teacher.
        sha256: of its checkpoint file.
    """

    def __init__(self, model: SkdCtc, sha256: str) -> None:
        self.model = model.requires_grad_(False)
        self.sha256 = sha256
        self._fits: Any = None  # the model that it was last compared with

    @classmethod
    def open(cls, cfg: Any, task: FairseqTask) -> "FrozenTeacher":
        """Read ``cfg.teacher_path``, and remember which file it was in the configuration that fairseq saves.

        Raises:
            UserError: not a checkpoint of model ``skd_ctc``; another dictionary, sampling rate or scaling of the audio
                than the task's; another file than the run began with; or weights that are NaN or Inf.
        """
        path = absolute(cfg.teacher_path)
        try:
            trained = open_trained(path, KEY)
        except UserError as error:
            raise UserError(str(error) if KEY in str(error) else f"{KEY}: {error}") from error
        _check_task(trained, task)
        sha256 = file_hash(path)
        _remember(cfg, sha256)
        trained.config["model"]["student_layers"] = []  # their heads are not built
        try:
            return cls(build_model(trained, task, trained.depth), sha256)
        except UserError as error:
            raise UserError(f"{KEY}: {error}") from error

    @torch.no_grad()
    def __call__(self, net_input: Mapping[str, Any], student: Any) -> Tensor:
        """(T, B, V) logits over the batch that ``student`` sees.

        Raises:
            UserError: the two make other frames of the same audio.
        """
        parameter = next(student.parameters())
        if self._fits is not student:
            self._check_frames(student)
            self._fits = student
        own = next(self.model.parameters())
        if (own.device, own.dtype) != (parameter.device, parameter.dtype):
            self.model.to(device=parameter.device, dtype=parameter.dtype)
        return self.model.eval()(**net_input)["encoder_out"]

    def _check_frames(self, student: Any) -> None:
        ours, theirs = self.model.w2v_encoder.frame_grid, student.w2v_encoder.frame_grid
        if ours != theirs:
            raise UserError(
                f"{KEY}: teacher and model cannot be compared frame by frame, they make other frames of the same audio "
                f"({ours} against {theirs})"
            )


def _check_task(trained: Any, task: FairseqTask) -> None:
    ours, theirs = list(task.target_dictionary.symbols), trained.dictionary
    symbols = list(theirs.symbols) if theirs is not None else ours[: trained.symbols]
    if trained.symbols != len(ours) or symbols != ours:
        difference = first_difference(symbols, ours)
        differs = f"; {difference.describe('it', 'the task')}" if difference else ""
        raise UserError(
            f"{KEY}={trained.path} was trained with another dictionary than that of task.data: teacher and model need "
            f"the same symbols in the same order (it has {trained.symbols}, the task {len(ours)}{differs})"
        )
    for key, value in (("normalize", trained.encoder.normalize), ("sample_rate", trained.encoder.sample_rate)):
        if getattr(task.cfg, key, value) != value:
            raise UserError(f"{KEY}={trained.path} was trained with task.{key}={value}, not {getattr(task.cfg, key)}")


def _remember(cfg: Any, sha256: str) -> None:
    """Write the file's hash into what fairseq saves, and refuse to go on from a checkpoint that holds another."""
    root = root_of(cfg)
    if root is None:
        return
    resumed = resumed_from(root)
    before = section(settings_of(resumed), "criterion").get("teacher_sha256") if resumed else None
    if before not in (None, sha256):
        raise UserError(
            f"{KEY}={cfg.teacher_path} is not the file that {resumed} was trained with (its SHA-256 begins with "
            f"{sha256[:12]}, not {shown(before, 12)}): give that teacher, or another checkpoint.save_dir"
        )
    keep(cfg, "criterion", "teacher_sha256", sha256)
