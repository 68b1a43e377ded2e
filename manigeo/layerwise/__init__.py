"""Measures of every layer and kind of an activation file, as rows of the results table."""
