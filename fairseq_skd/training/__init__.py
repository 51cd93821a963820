"""What surrounds a training: the configuration is checked before it, its numbers are watched during it."""
