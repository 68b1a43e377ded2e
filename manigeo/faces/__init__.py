"""Faces of numbers, of results and of work in progress, in a terminal and in a notebook."""
