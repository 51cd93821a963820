"""Hooks into fairseq's training program: configuration, start and resume, numbers that are not finite."""

from fairseq_skd import registration  # noqa: F401  (first, or its imports meet half a module)
