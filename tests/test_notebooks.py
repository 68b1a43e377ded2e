"""The notebooks: they run, and are committed as they ran."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@notebooks
def test_a_notebook_runs_to_its_end(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat  # comes with nbclient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # not the user's, nor its start-up files
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()  # raises CellExecutionError with the cell's traceback
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@notebooks
def test_a_notebook_is_committed_with_the_outputs_of_one_straight_run(path):
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]


@notebooks
def test_a_notebook_names_no_path_of_the_machine_that_ran_it(path):
    written = path.read_text("utf-8")
    assert not [place for place in ("/home/", "/root/", "/tmp/", "/Users/", str(Path.home())) if place in written]
