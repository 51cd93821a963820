"""Experiments as data, and the commands that run, compare and draw them."""
