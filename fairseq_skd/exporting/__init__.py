"""A fine-tuned checkpoint in other formats."""
