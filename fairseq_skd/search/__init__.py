"""Turn logits into units and words: greedily, or by beam search with lexicon and n-gram model."""
