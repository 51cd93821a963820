"""Pretrained encoders: from a checkpoint file to layers that can be run and tapped."""
