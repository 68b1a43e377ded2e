"""Run notebooks from their sources: ``python notebooks/build.py NAME ...`` writes NAME.ipynb with the outputs of NAME.py.

Without names, all of them. ``MANIGEO_FULL=1`` runs their full settings. It takes the group dev of ``pyproject.toml``.
"""

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def build(source: Path) -> None:
    """Write the notebook beside its source, after one straight run in an empty folder; nothing where a cell fails."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"], cell.metadata = f"c{number:02}", {}  # the same at every build
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")])
    )  # of the kernel
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=None, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.py") if path != Path(__file__))
    for name in names:
        build((FOLDER / name).with_suffix(".py"))
