"""Single examples: when each was learned, how hard it is, and whether a network has memorized it."""
