"""The keys of ``criterion:`` for ``_name: skd_ctc``: the objective's, then those of fairseq's ``ctc``."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from fairseq_skd.errors import UserError


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


_IN_TRAINING = "language-model decoding in validation is not supported"


@dataclass
class SkdCtcCriterionConfig(FairseqDataclass):
    """Self-knowledge distillation's weights and schedule, and fairseq's CTC settings."""

    schedule: str = _key("clamped_linear", "how alpha grows: clamped_linear, linear, cosine or constant")
    tau: float = _key(0.3, "clamp of alpha, 0 <= tau < 0.5 (clamped_linear and cosine)")
    alpha: float = _key(0.5, "weight of the students' loss (constant only)")
    kd_weight: float = _key(1.0, "weight of the distillation term within the students' loss")
    temperature: float = _key(1.0, "temperature of the distillation term")
    stop_gradient: bool = _key(True, "distillation does not train the teacher")
    max_update: int = II("optimization.max_update")

    zero_infinity: bool = _key(False, "zero infinite CTC losses")
    sentence_avg: bool = II("optimization.sentence_avg")
    post_process: str = _key("letter", "how units become words: letter, sentencepiece, ...")
    wer_kenlm_model: Optional[str] = _key(None, _IN_TRAINING)
    wer_lexicon: Optional[str] = _key(None, _IN_TRAINING)
    wer_lm_weight: float = _key(2.0, _IN_TRAINING)
    wer_word_score: float = _key(-1.0, _IN_TRAINING)
    wer_sil_weight: float = _key(0.0, _IN_TRAINING)
    wer_args: Optional[str] = _key(None, _IN_TRAINING)


def check(cfg: SkdCtcCriterionConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        UserError: a ``wer_*`` key that is set, or a weight out of range.
    """
    for name, declared in SkdCtcCriterionConfig.__dataclass_fields__.items():
        if name.startswith("wer_") and getattr(cfg, name) not in (declared.default, ""):
            raise UserError(
                f"criterion.{name}={getattr(cfg, name)} is refused: validation decodes greedily; "
                f"decode a checkpoint with python -m fairseq_skd.infer"
            )
    if cfg.kd_weight < 0:
        raise UserError(f"criterion.kd_weight={cfg.kd_weight} is negative")
    if cfg.temperature <= 0:
        raise UserError(f"criterion.temperature={cfg.temperature} is not positive")
