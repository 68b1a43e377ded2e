"""The notebooks: they are their sources, they run, and are committed as they ran.

Those of a paper, whose names end with its year, run in a file of their own, so that another worker can take them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import FOLDER, execute, run_commands_here
from tests.smaller import SMALLER, made_smaller

pytest.importorskip("papers", reason="needs the folder notebooks/ of a checkout")
from papers.verdicts import MIME, UNTESTABLE, WORDS

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PAPERS = [path for path in NOTEBOOKS if path.stem[-4:].isdigit()]
LEFT_OPEN = re.compile(
    r"\b(?:TODO|FIXME|TBD|XXX|FULLTEXT|TEXT-\w+)\b|not (?:yet timed|timed yet|yet measured)|\?\?\?", re.I
)

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run_straight(kernel, path, folder):
    """Run a notebook in a folder of its own, with less to do than its small settings take."""
    import nbformat  # comes with nbclient

    notebook = made_smaller(path.stem, nbformat.read(path, as_version=4))
    execute(kernel, notebook, folder)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path not in PAPERS], ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(kernel, path, tmp_path):
    assert run_straight(kernel, path, tmp_path)


def test_a_notebook_sees_nothing_of_the_one_before_and_its_failure_is_raised(kernel, tmp_path):
    import nbformat
    from nbclient.exceptions import CellExecutionError

    before, after = (
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        for code in ("left = 3", "assert 'left' not in dir()\nleft")
    )
    execute(kernel, before, tmp_path)
    with pytest.raises(CellExecutionError, match="NameError"):
        execute(kernel, after, tmp_path)


def test_a_command_of_a_notebook_runs_in_its_folder_and_its_failure_is_told(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(subprocess, "run", lambda words, **options: started.append(words))
    run_commands_here()
    words = [sys.executable, "-m", "manigeo", "infos"]
    failed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "did you mean info?" in failed.stderr
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert started == []
    subprocess.run(["another", "program"])
    assert started == [["another", "program"]]


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
