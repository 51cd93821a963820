"""Make one HTML page from a folder of runs: learning curves, results of ``infer`` and ``align``."""
