"""Execution of long work: workers, pipelines of commands, grids of training runs."""
