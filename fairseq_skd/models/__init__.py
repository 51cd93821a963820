"""fairseq glue: the model ``skd_ctc``, a pretrained trunk with one CTC head per exit."""

from fairseq_skd import registration  # noqa: F401  (first, or its imports meet half a module)
from fairseq_skd.models.skd_ctc import SkdCtc

__all__ = ["SkdCtc"]
