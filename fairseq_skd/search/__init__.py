"""From logits to units and words: greedy, or by beam search with a lexicon and an n-gram model."""
