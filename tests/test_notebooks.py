"""The notebooks: they are their sources, they run, and are committed as they ran.

Those of a paper, whose names end with its year, run in a file of their own, so that another worker can take them.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.smaller import SMALLER, made_smaller

pytest.importorskip("papers", reason="needs the folder notebooks/ of a checkout")
from papers.verdicts import MIME, UNTESTABLE, WORDS

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PAPERS = [path for path in NOTEBOOKS if path.stem[-4:].isdigit()]
LEFT_OPEN = re.compile(
    r"\b(?:TODO|FIXME|TBD|XXX|FULLTEXT|TEXT-\w+)\b|not (?:yet timed|timed yet|yet measured)|\?\?\?", re.I
)

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run_straight(path, folder, monkeypatch):
    """Run a notebook in a folder of its own, with less to do than its small settings take."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat  # comes with nbclient

    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))  # not the user's, nor its start-up files
    monkeypatch.delenv("MANIGEO_FULL", raising=False)
    paths = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]  # what notebooks share lies beside them
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
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


@notebooks
def test_a_notebook_leaves_nothing_to_be_filled_in(path):
    shown = json.dumps([out.get("data", out).get("text/plain", out.get("text")) for out in _outputs(path)])
    assert LEFT_OPEN.findall(path.with_suffix(".py").read_text("utf-8")) == []
    assert LEFT_OPEN.findall(shown) == []


@pytest.mark.parametrize(
    "text", ["see FULLTEXT", "TODO: this", "forty minutes; not timed yet", "value TBD.", "TEXT-END", "???"]
)
def test_what_is_left_open_is_recognized(text):
    assert LEFT_OPEN.search(text)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_of_a_paper_every_claim_has_a_rule_and_one_of_three_verdicts(path):
    (rows,) = [out["data"][MIME] for out in _outputs(path) if MIME in out.get("data", {})]
    assert len(rows) >= 10
    assert {row["verdict"] for row in rows} <= set(WORDS)
    for row in rows:
        assert set(row) == {"claim", "paper", "rule", "ours", "n", "scale", "verdict"}
        assert all(row.values()), row
        assert re.search(r"\d", row["ours"]) or row["verdict"] == UNTESTABLE, f"no number: {row}"
        assert row["paper"] not in ("not said", "not asked"), f"not a claim of the paper: {row}"
    assert not re.search(r"\bpartly\b", path.with_suffix(".py").read_text("utf-8"))


def _outputs(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [out for cell in cells if cell["cell_type"] == "code" for out in cell["outputs"]]


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
