"""Single examples: when each was learned, how deep and how firmly it is held, and at what cost."""
