"""The ``criterion`` keys of ``skd_ctc`` and ``kd_ctc``: fairseq's ``ctc`` keys and our own."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from omegaconf import II, MISSING, OmegaConf

from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import absolute
from fairseq_skd.files.units import POST_PROCESSES
from fairseq_skd.objective.losses import SELECTIONS, FrameSelection
from fairseq_skd.objective.schedule import AlphaSchedule, DistillationWeight
from fairseq_skd.search.beam import BeamOptions, BeamSearch
from fairseq_skd.search.lexicon import read_lexicon
from fairseq_skd.typed_settings import FINITE, Range, check_ranges


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


_SEARCH = "of the beam search in validation, see wer_kenlm_model"
# The beam width of fairseq's ctc, which has no key for it.
_WIDTH = 50


METHODS = ("guide", "softmax_l2", "softmax_kl")

RANGES: dict[str, Range] = {
    **dict.fromkeys(("wer_lm_weight", "wer_word_score", "wer_sil_weight"), FINITE),
    # Below 0.01 the float32 softmax of usual logits is one-hot, above 100 it is uniform: neither
    # teaches anything.
    "temperature": Range(0.01, 100),
}


@dataclass
class CtcKeys(FairseqDataclass):
    """fairseq's CTC settings."""

    zero_infinity: bool = _key(False, "zero infinite CTC losses")
    sentence_avg: bool = II("optimization.sentence_avg")
    post_process: str = _key("letter", "how units become words: letter, sentencepiece, ...")
    wer_kenlm_model: Optional[str] = _key(
        None, "word language model: wer is then scored with beam search, raw_wer with the best path"
    )
    wer_lexicon: Optional[str] = _key(None, "lexicon " + _SEARCH)
    wer_lm_weight: float = _key(2.0, "weight of the language model " + _SEARCH)
    wer_word_score: float = _key(-1.0, "score of a word " + _SEARCH)
    wer_sil_weight: float = _key(0.0, "score of a silent frame " + _SEARCH)
    wer_args: Optional[str] = _key(None, "refused: set wer_kenlm_model and the other wer_ keys instead")
    max_update: int = II("optimization.max_update")


@dataclass
class DistillationKeys(CtcKeys):
    """The keys of every distillation term."""

    kd_weight: float = _key(1.0, "weight of the distillation term")
    kd_warmup: float = _key(0.0, "share of max_update over which kd_weight grows from 0")
    temperature: float = _key(1.0, "temperature of the distillation term, 0.01 to 100")
    frames: str = _key("all", "frames that the distillation term compares: " + SELECTIONS)
    frames_plain_sum: bool = _key(False, "do not scale the kept frames up to the weight of all frames")


@dataclass
class SkdCtcCriterionConfig(DistillationKeys):
    """The keys of self-knowledge distillation."""

    schedule: str = _key("clamped_linear", "how alpha grows: clamped_linear, linear, cosine or constant")
    tau: float = _key(0.3, "clamp of alpha, 0 <= tau < 0.5 (clamped_linear and cosine)")
    alpha: float = _key(0.5, "weight of the students' loss (constant only)")
    stop_gradient: bool = _key(True, "distillation does not train the teacher")


@dataclass
class KdCtcCriterionConfig(DistillationKeys):
    """The keys of distillation from a separate teacher."""

    method: str = _key("softmax_kl", "guide, softmax_l2 or softmax_kl")
    teacher_path: str = _key(MISSING, "fine-tuned checkpoint of model skd_ctc, run at its full depth")
    teacher_sha256: Optional[str] = _key(None, "written by the criterion: hash of the teacher's file")


def check_criterion(cfg: Any) -> None:
    """Check all keys of a criterion of this package before a training begins.

    Raises:
        UserError: a key has a bad value; the message names the key.
    """
    check_ctc(cfg)
    distillation_of(cfg)
    if cfg._name == "skd_ctc":
        alpha_of(cfg)
    else:
        check_method(cfg)


def check_ctc(cfg: CtcKeys) -> None:
    """Check the keys that all criteria share, and every numeric range.

    Raises:
        UserError: ``post_process`` is unknown, ``wer_args`` is set, a ``wer_*`` key lacks another
            key that it needs, or a number is out of range.
    """
    check_ranges("criterion", cfg, RANGES)
    if cfg.post_process not in POST_PROCESSES:
        raise UserError(
            f"criterion.post_process={cfg.post_process} is unknown: choose one of {', '.join(POST_PROCESSES[:-1])}"
        )
    if cfg.wer_args:
        raise UserError(
            f"criterion.wer_args={cfg.wer_args} is refused, because fairseq executes its text: set "
            f"criterion.wer_kenlm_model, wer_lexicon, wer_lm_weight and wer_word_score instead"
        )
    if not cfg.wer_kenlm_model:
        for name, declared in CtcKeys.__dataclass_fields__.items():
            if name.startswith("wer_") and getattr(cfg, name) not in (declared.default, ""):
                raise UserError(
                    f"criterion.{name}={getattr(cfg, name)} does nothing without criterion.wer_kenlm_model: set that "
                    f"key too, or delete this one"
                )
    elif not cfg.wer_lexicon:
        raise UserError(f"criterion.wer_kenlm_model={cfg.wer_kenlm_model} needs a lexicon: set criterion.wer_lexicon")


def distillation_of(cfg: DistillationKeys) -> tuple[FrameSelection, DistillationWeight]:
    """Build the frame selection and the weight schedule of the distillation term.

    Raises:
        UserError: a key has a bad value; the message names the key.
    """
    frames = FrameSelection.parse(cfg.frames, cfg.frames_plain_sum)
    return frames, DistillationWeight(cfg.kd_weight, cfg.kd_warmup, cfg.max_update)


def alpha_of(cfg: SkdCtcCriterionConfig) -> AlphaSchedule:
    """Build the schedule of alpha, the students' share of the loss.

    Raises:
        UserError: a key has a bad value; the message names the key.
    """
    return AlphaSchedule(cfg.schedule, cfg.max_update, cfg.tau, cfg.alpha)


def check_method(cfg: KdCtcCriterionConfig) -> None:
    """Check the keys of ``kd_ctc``.

    Raises:
        UserError: the method is unknown, ignores the temperature that is set, or has no teacher.
    """
    if cfg.method not in METHODS:
        raise UserError(f"criterion.method={cfg.method} is unknown: choose one of {', '.join(METHODS)}")
    if cfg.method == "guide" and cfg.temperature != 1:
        raise UserError(f"criterion.temperature={cfg.temperature} does nothing with method=guide: leave it at 1")
    if OmegaConf.is_missing(cfg, "teacher_path") or not cfg.teacher_path:
        raise UserError("criterion.teacher_path is not set: give a fine-tuned checkpoint of model skd_ctc")


def beam_search(cfg: CtcKeys, dictionary: Dictionary, blank: int) -> BeamSearch | None:
    """Build the beam search for validation; None without a language model.

    Raises:
        UserError: flashlight-text is not installed, or a file cannot be used.
    """
    if not cfg.wer_kenlm_model:
        return None
    lexicon = read_lexicon(absolute(cfg.wer_lexicon or ""), dictionary.symbols, dictionary.nspecial)
    options = BeamOptions(
        beam=_WIDTH,
        beamsizetoken=_WIDTH,
        beamthreshold=min(_WIDTH, len(dictionary)),
        lmweight=cfg.wer_lm_weight,
        wordscore=cfg.wer_word_score,
        silweight=cfg.wer_sil_weight,
    )
    options.check("criterion, the beam search's ")
    return BeamSearch(dictionary.symbols, blank, options, absolute(cfg.wer_kenlm_model), lexicon)
