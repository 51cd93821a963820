"""Turn recordings and transcripts into manifests for fairseq, without importing torch."""
