"""The criterion ``kd_ctc``: distillation from a separate, frozen teacher (docs/method.md, section 2)."""

from collections.abc import Mapping
from typing import Any

from fairseq.criterions import register_criterion
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_skd.criterions.config import KdCtcCriterionConfig, check_method, distillation_of
from fairseq_skd.criterions.ctc import Batch, CtcCriterion
from fairseq_skd.encoders.pretrained import section
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.disk import absolute
from fairseq_skd.models.config import keep, root_of
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.objective import losses
from fairseq_skd.recognizer import FramesError, Recognizer, SymbolsError, check_frames, check_symbols
from fairseq_skd.training.resuming import resumed_from, settings_of

KEY = "criterion.teacher_path"


class FrozenTeacher:
    """Logits of a fine-tuned model at its full depth, in evaluation mode, without masks and without gradients.

    An utterance has the same logits in any batch, as when the model transcribes it.

    Attributes:
        recognizer: the teacher.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer
        self._fits: Any = None  # the model that it was last compared with

    @classmethod
    def open(cls, cfg: Any, task: FairseqTask) -> "FrozenTeacher":
        """Read ``cfg.teacher_path``, and remember which file it was in the configuration that fairseq saves.

        Raises:
            UserError: not a checkpoint of model ``skd_ctc``; another dictionary, sampling rate or scaling of the audio
                than the task's; another file than the run began with; or weights that are NaN or Inf.
        """
        try:
            trained = open_trained(absolute(cfg.teacher_path))
            _check_task(trained, task)
            recognizer = Recognizer(trained, (0,), "cpu")  # until it is known where the model trains
        except UserError as error:
            raise UserError(f"{KEY}: {error}") from error
        _remember(cfg, recognizer.sha256)
        return cls(recognizer)

    def __call__(self, net_input: Mapping[str, Any], student: Any) -> Tensor:
        """(T, B, V) logits over the batch that ``student`` sees.

        Raises:
            UserError: the two make other frames of the same audio.
        """
        parameter = next(student.parameters())
        if self._fits is not student:
            try:
                check_frames(self.recognizer.frame_grid, student.w2v_encoder.frame_grid)
            except FramesError as error:
                raise UserError(f"{KEY}: teacher and model cannot be compared frame by frame, {error}") from error
            self._fits = student
        if (self.recognizer.device, self.recognizer.dtype) != (parameter.device, parameter.dtype):
            self.recognizer.to(parameter.device, parameter.dtype)
        (logits,) = self.recognizer(net_input["source"], net_input.get("padding_mask")).logits.values()
        return logits


def _check_task(trained: TrainedModel, task: FairseqTask) -> None:
    ours, theirs = list(task.target_dictionary.symbols), trained.dictionary
    symbols = list(theirs.symbols) if theirs is not None else ours[: trained.symbols]
    try:
        check_symbols(symbols if trained.symbols == len(symbols) else [], ours)
    except SymbolsError as error:
        raise UserError(
            f"{trained.path} was trained with another dictionary than the one of task.data: teacher and model need the "
            f"same symbols in the same order (it has {trained.symbols}, the task {len(ours)}; "
            f"{error.difference.describe('it', 'the task')})"
        ) from error
    for key, value in (("normalize", trained.encoder.normalize), ("sample_rate", trained.encoder.sample_rate)):
        if getattr(task.cfg, key, value) != value:
            raise UserError(f"{trained.path} was trained with task.{key}={value}, not {getattr(task.cfg, key)}")


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


@register_criterion("kd_ctc", dataclass=KdCtcCriterionConfig)
class KdCtcCriterion(CtcCriterion):
    """L = L_CTC + kd_weight L_KD, where L_KD compares the model with a separate teacher, frame by frame.

    ============== =====================================================================================
    ``guide``      Guide-CTC: minus the model's posterior at the teacher's spikes
    ``softmax_l2`` squared distance of the posteriors (softmax-level KD)
    ``softmax_kl`` KL(teacher || model), the form that L_SKD has
    ============== =====================================================================================

    The model has one exit, its full depth (``model.student_layers=[]``); ``model.keep_layers`` makes it a small one.
    """

    def __init__(self, cfg: KdCtcCriterionConfig, task: FairseqTask) -> None:
        super().__init__(cfg, task)
        check_method(cfg)
        self.frames, self.kd_weight = distillation_of(cfg)
        # No module: as one it would be saved, wrapped and trained with the criterion.
        self.teacher = FrozenTeacher.open(cfg, task)

    def guide(self, model: Any, sample: Mapping[str, Any]) -> Tensor:
        """(T, B, V) logits of the teacher over the same audio, without masks."""
        return self.teacher(sample["net_input"], model)

    def objective(self, batch: Batch, updates: int) -> tuple[Tensor, dict[str, Any]]:
        """The loss and its two terms."""
        (student,), teacher = batch.logits.values(), batch.guide
        assert teacher is not None
        weights = self.frames.weights(teacher, batch.frames, self.blank)
        if self.cfg.method == "guide":
            distilled = losses.guide_loss(teacher, student, batch.frames, self.blank, weights)
        elif self.cfg.method == "softmax_l2":
            distilled = losses.softmax_distance(teacher, student, batch.frames, self.cfg.temperature, weights)
        else:
            distilled = losses.frame_kl(teacher, student, batch.frames, self.cfg.temperature, weights=weights)
        terms = {"ctc": self.ctc(student, batch), "kd": distilled}
        return terms["ctc"] + self.kd_weight(updates) * distilled, terms

    def watched(self, batch: Batch) -> dict[str, Tensor]:
        """The separate teacher, and the model."""
        (student,), teacher = batch.logits.values(), batch.guide
        assert teacher is not None
        return {"teacher": teacher, "student": student}
