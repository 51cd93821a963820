"""The mathematics of the method (method section 1 of the paper): torch, and nothing of fairseq."""
