"""Model files of every kind, read safely: checkpoints, state dicts of other programs, exported networks."""
