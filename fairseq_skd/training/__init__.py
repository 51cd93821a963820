"""Hooks into fairseq's training program: configuration, start and resume, NaN and Inf."""

from fairseq_skd import registration  # noqa: F401  (first: its imports would find this module half loaded)
