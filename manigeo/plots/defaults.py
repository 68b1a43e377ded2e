"""Settings of matplotlib that a command begins with: those of the user, not those of the folder it is given in."""

import os

import matplotlib

from manigeo.execution.start import started


def leave_out_folder_settings() -> None:
    """Undo a ``matplotlibrc`` of the working directory, which can have ``latex`` run, with its own preamble, or a module
    imported. In scripts and notebooks it stays: there, matplotlib is the user's."""
    if started() and os.path.abspath(matplotlib.matplotlib_fname()) == os.path.abspath("matplotlibrc"):
        matplotlib.rcdefaults()
        matplotlib.use("agg")
