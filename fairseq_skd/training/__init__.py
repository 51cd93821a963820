"""Hooks into fairseq's training program: configuration, start and resume, numbers that are not finite."""
