"""A live network in Python: its activations, and where it memorizes, without files."""
