"""The start of the program in a folder that may be a stranger's: no module, and no compiled one, is looked for there.

Imports nothing that is not in memory when Python starts: anything else could already be the folder's own.
"""

import os
import sys

_STARTED: list[bool] = []


def started_as(name: str) -> bool:
    """Return whether this process is the program ``name``: its console script, or ``python -m name``, as is seen while
    the package is imported."""
    words, given = getattr(sys, "orig_argv", []), getattr(sys, "argv", [])
    if given[:1] == ["-m"] and len(words) >= len(given):
        last = words[len(words) - len(given)].removesuffix(".__main__")  # the last word for Python itself
        return last == name or (last.startswith("-") and last.endswith(f"m{name}"))
    return bool(given) and os.path.basename(given[0]).partition(".")[0] == name


def started() -> bool:
    """Return whether this process carries out commands, and is not a user's own script or notebook."""
    return bool(_STARTED)


def leave_out_compiled() -> None:
    """See to it that no ``.numba_config.yaml`` of the working directory says where compiled functions, which are pickles,
    are read from: a variable, though empty, goes before that file."""
    for name in ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES"):
        os.environ.setdefault(name, "")


def leave_out_working_directory() -> None:
    """Take the working directory out of ``sys.path``, where ``python -m`` and an empty entry of ``PYTHONPATH`` put it.

    It stays where ``PYTHONPATH`` names it in full, and last where manigeo itself lies in it. Nor do settings of that folder
    count: :func:`leave_out_compiled`, and for figures :mod:`manigeo.plots.defaults`.
    """
    _STARTED.append(True)
    leave_out_compiled()
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted, and holds no modules
        here = ""
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in sys.path if entry not in ("", ".") and (entry != here or here in named)]
    if here in sys.path and here in (own, os.path.join(own, "extract")) and here not in kept:
        kept.append(here)
    sys.path[:] = kept
