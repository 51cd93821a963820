"""The fairseq model ``skd_ctc``: a pretrained trunk with one CTC head per exit."""

from fairseq_skd import registration  # noqa: F401  (first: it imports this package's modules itself)
from fairseq_skd.models.skd_ctc import SkdCtc

__all__ = ["SkdCtc"]
