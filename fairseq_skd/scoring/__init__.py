"""Turn units into text, count errors, and compute intervals of error rates."""
