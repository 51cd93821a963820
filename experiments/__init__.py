"""Experiments as data, and the scripts that run and draw them."""
