"""The notebooks: they are their sources, they run, and are committed as they ran.

Those of a paper, whose names end with its year, run in a file of their own, so that another worker can take them.
"""

import json
from pathlib import Path

import pytest

from tests.smaller import SMALLER, made_smaller

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PAPERS = [path for path in NOTEBOOKS if path.stem[-4:].isdigit()]

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run_straight(path, folder, monkeypatch):
    """Run a notebook in a folder of its own, with less to do than its small settings take."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat  # comes with nbclient

    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))  # not the user's, nor its start-up files
    monkeypatch.delenv("MANIGEO_FULL", raising=False)
    notebook = made_smaller(path.stem, nbformat.read(path, as_version=4))
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()  # raises CellExecutionError with the cell's traceback
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path not in PAPERS], ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path, tmp_path, monkeypatch):
    assert run_straight(path, tmp_path, monkeypatch)


@notebooks
def test_a_notebook_is_committed_with_the_outputs_of_one_straight_run(path):
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]


@notebooks
def test_a_notebook_has_the_cells_of_its_source(path):
    jupytext = pytest.importorskip("jupytext")
    source, notebook = jupytext.read(path.with_suffix(".py")), jupytext.read(path)
    assert _cells(source) == _cells(notebook)
    assert source.metadata["kernelspec"] == notebook.metadata["kernelspec"]


def _cells(notebook):
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


@notebooks
def test_a_notebook_names_no_path_of_the_machine_that_ran_it(path):
    written = path.read_text("utf-8")
    assert not [place for place in ("/home/", "/root/", "/tmp/", "/Users/", str(Path.home())) if place in written]


def test_every_source_has_been_run():
    sources = {path.stem for path in FOLDER.glob("*.py")} - {"build"}
    assert sources == {path.stem for path in NOTEBOOKS}
    assert set(SMALLER) <= sources
