"""The mathematics of the method (docs/method.md): torch, and nothing of fairseq."""
