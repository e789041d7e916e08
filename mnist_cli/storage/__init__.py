"""What outlives a run: models and checkpoints."""
