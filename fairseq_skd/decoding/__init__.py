"""Decode a manifest with a fine-tuned checkpoint: text, error rates and files."""
