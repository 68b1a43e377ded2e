"""Movement of the layers over a run, and beside the generalization of many runs."""
