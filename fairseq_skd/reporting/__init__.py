"""One HTML page from a folder of runs: what ``infer`` and ``align`` found, and how training went."""
