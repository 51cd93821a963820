"""From a fine-tuned checkpoint and a manifest to text, error rates and files."""
