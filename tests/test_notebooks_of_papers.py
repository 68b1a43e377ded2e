"""The notebooks of the papers run; what else is asked of a notebook is asked in ``test_notebooks``."""

import pytest

from tests.test_notebooks import PAPERS, run_straight


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_notebook_of_a_paper_runs_to_its_end(kernel, path, tmp_path):
    assert run_straight(kernel, path, tmp_path)
