"""From logits to units to error counts; pure functions that training, decoding and analysis share."""
