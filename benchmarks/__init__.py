"""Time and memory of training, decoding, manifests and pretraining: one script per question."""
