"""From tables of recordings and transcripts to the manifests that fairseq reads; imports no torch."""
