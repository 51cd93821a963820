"""What happens before the first update: settings, data and start checkpoints are checked."""
