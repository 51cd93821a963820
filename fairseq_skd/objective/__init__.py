"""The mathematics of the method (docs/method.md). It imports torch, never fairseq."""
