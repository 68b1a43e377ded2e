"""A sweep: its cells are the combinations of its grids, each is done once, and how it is carried out leaves no trace."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from manigeo.cli.cells import carry_out, cell_steps
from manigeo.errors import InputError, UsageError
from manigeo.execution.grids import EXAMPLES, example_names, sweep_cells, sweep_text
from tests.command_line import done, run

SMALL = """
[train]
data = "digits"
data-arg = {per_class = 12}
epochs = 2

[grid]
arch-arg.width = [8, 12]
seed = [0, 1]

[analyze]
checkpoints = "last"
layers = ["logits"]
classes = 3
skip = ["separability", "rewind", "reinit", "gradients", "localize", "report"]
"""

TWO = SMALL.replace("[8, 12]", "[8]")  # cells, where their number says nothing

BROKEN = """
import os
from torch import nn

def net(input_shape, n_classes, width, broken=""):
    if broken and os.path.exists(broken):
        raise RuntimeError("out of order\\nfor today")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, n_classes))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "sweep.toml") -> str:
    Path(name).write_text(text)
    return name


# ------------------------------------------------------------------------------------------------------------- the cells
def test_the_cells_are_the_combinations_of_the_grid_in_its_order(here):
    cells = sweep_cells(written(SMALL))
    assert [cell.name for cell in cells] == [f"width={w},seed={s}" for w in (8, 12) for s in (0, 1)]
    assert cells[3].values == {"arch-arg.width": 12, "seed": 1}
    train = {"data": "digits", "data-arg": {"per_class": 12}, "epochs": 2, "arch-arg": {"width": 12}, "seed": 1}
    assert cells[3].train == train
    assert cells[3].analyze["layers"] == ["logits"]


def test_several_grids_are_one_sweep_and_without_a_grid_there_is_one_run(here):
    text = '[train]\nepochs = 1\n[[grid]]\nlr = [0.1, 0.2]\n[[grid]]\nlr = [0.3]\noptimizer = ["adam"]\n'
    assert [cell.name for cell in sweep_cells(written(text))] == ["lr=0.1", "lr=0.2", "lr=0.3,optimizer=adam"]
    (cell,) = sweep_cells(written("[train]\nepochs = 1\n"))
    assert (cell.name, cell.analyze) == ("run", None)


def test_what_varies_wins_over_what_does_not_and_leaves_the_rest_of_a_table(here):
    text = "[train]\narch-arg = {width = 5, depth = 2}\n[grid]\narch-arg.width = [7]\n"
    (cell,) = sweep_cells(written(text))
    assert cell.train == {"arch-arg": {"width": 7, "depth": 2}}


def test_names_are_those_of_files_and_stay_different_where_values_are_long(here):
    values = ["a/b", "x" * 200 + "1", "x" * 200 + "2"]
    cells = sweep_cells(written(f"[grid]\ndata = {values}\n"))
    assert cells[0].name == "data=a_b"
    assert len({cell.name for cell in cells}) == 3
    assert all("/" not in cell.name and len(cell.name) < 200 for cell in cells)


def test_no_name_of_a_cell_leaves_the_folder_of_the_sweep(here):
    keys = ["../../x", "/abs/x", "..", "a\\\\b", "nul"]
    values = ["../../x", "/abs", "..", "", "\\u0000", "\\u001b[31m"]
    grid = [f'[[grid]]\ndata-arg."{key}" = ["{value}"]\n' for key in keys for value in values]
    for name in (sweep_cells(written(text))[0].name for text in grid):
        assert (here / "cells" / name).resolve().parent == here / "cells"
        assert name.isprintable()
        assert "\\" not in name


def test_cells_are_counted_before_they_are_made_and_many_are_planned_in_seconds(here):
    axis = list(range(100))
    huge = written("[grid]\n" + "".join(f"arch-arg.a{i} = {axis}\n" for i in range(6)))
    with pytest.raises(InputError, match=r"has 1,000,000,000,000 cells; expected at most 100,000"):
        sweep_cells(huge)
    with pytest.raises(InputError, match=r"expected at most 1 MB of text"):
        sweep_cells(written("#" + "x" * 1_000_000))
    axis = list(range(14))
    cells = sweep_cells(written(f"[grid]\nlr = {axis}\nepochs = {axis}\nseed = {axis}\n[analyze]\nclasses = 3\n"))
    began = time.process_time()
    for cell in cells:
        cell_steps("sweep.toml", here / cell.name, cell)
    # 2,744 cells take .5 s, and took 5 s when each was parsed: 64,000 in ten seconds, not two minutes
    assert time.process_time() - began < 2.5


def test_a_pipe_is_no_sweep_and_is_not_waited_for(here):
    os.mkfifo("sweep.toml")
    with pytest.raises((InputError, UsageError), match=r"sweep.toml is no"):
        sweep_cells("sweep.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid = ", "is not a TOML file"),
        ("[trian]\nepochs = 1\n", "has trian; a sweep has the tables train, grid, analyze"),
        ("grid = 3\n", "are tables"),
        ("[grid]\nseed = 3\n", "seed of the grid must be a list of values"),
        ("[grid]\nseed = []\n", "seed of the grid must be a list of values"),
        ("[grid]\nseed = [1, 1]\n", "has cells twice: seed=1"),
        ('[train]\nepoch = 3\n', "epoch is no option of manigeo train"),
        ('[train]\nout = "x"\n', "out is said by the sweep itself"),
        ('[train]\nepochs = "many"\n', "cell run: .*'many' is not a valid integer"),
        ('[analyze]\nskip = ["everything"]\n', "cell run: .*there is no step 'everything'"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_refused_before_anything_begins(here, text, message):
    source = written(text)
    with pytest.raises(InputError, match=message):
        _ = [cell_steps(source, here / "cells" / cell.name, cell) for cell in sweep_cells(source)]
    assert not Path("cells").exists()


@pytest.mark.installed
def test_the_sweeps_that_come_with_the_program_can_be_shown_and_begun(here):
    of_stephenson = {f"stephenson2021-{what}" for what in ("width", "vgg16", "resnet18-width")}
    assert set(example_names()) == of_stephenson | {"wang2022"}
    for name in example_names():
        for cell in sweep_cells(name):
            assert len(cell_steps(name, here / cell.name, cell)) == 2
        assert done("sweep", name, "--show") == (EXAMPLES / f"{name}.toml").read_text()
    with pytest.raises(
        UsageError, match="no file, and no sweep that comes with manigeo: stephenson2021-resnet18-width, "
    ):
        sweep_text("stephenson")


# -------------------------------------------------------------------------------------------------------- carrying it out
def test_a_sweep_is_done_once_and_to_the_same_bits_by_one_process_or_two(here):
    source = written(TWO)
    plan = done("sweep", source, "--out", "one", "--dry-run")
    assert "2 cells (2 to do) -> one" in plan
    assert "parameters; training takes about" in plan
    assert not Path("one").exists()
    assert "2 of 2 cells are done" in done("sweep", source, "--out", "one")
    done("sweep", source, "--out", "two", "--jobs", "2")
    assert Path("one/results.csv").read_bytes() == Path("two/results.csv").read_bytes()
    cells = [pd.read_csv(f"{name}/cells.csv").drop(columns="seconds") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*cells)
    assert list(cells[0]["state"]) == ["done"] * 2
    assert set(cells[0]) > {"cell", "arch-arg.width", "seed", "error", "test", "test_best", "permuted"}
    before = {path: path.stat().st_mtime_ns for path in Path("one/cells").rglob("*") if path.is_file()}
    assert "(2 up to date)" in done("sweep", source, "--out", "one")
    assert {path: path.stat().st_mtime_ns for path in Path("one/cells").rglob("*") if path.is_file()} == before
    assert set(pd.read_csv("one/results.csv")["run"]) == set(cells[0]["cell"])


def test_shares_of_a_sweep_make_the_results_of_the_whole(here, monkeypatch):
    source = written(TWO.split("[analyze]")[0])
    done("sweep", source, "--out", "whole")
    first = done("sweep", source, "--out", "shares", "--shard", "1/3")
    assert "1 of the 1 cells of this share are done" in first
    assert not Path("shares/results.csv").exists()
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    done("sweep", source, "--out", "shares", "--shard", "auto")
    assert "0 of the 0 cells" in done("sweep", source, "--out", "shares", "--shard", "3/3")
    assert "(2 up to date)" in done(*first.split("next, when all shares are done: manigeo ")[1].split())
    metrics = [[p.read_bytes() for p in sorted(Path(f).glob("cells/*/metrics.csv"))] for f in ("whole", "shares")]
    assert len(metrics[0]) == 2
    assert metrics[0] == metrics[1]


def test_a_grid_that_grows_or_an_analysis_that_changes_does_only_what_is_new(here):
    done("sweep", written(TWO), "--out", "s")
    weights = Path("s/cells/width=8,seed=0/checkpoints/last.pt").stat().st_mtime_ns
    more = TWO.replace("[0, 1]", "[0, 1, 2]")
    assert "3 cells (2 up to date, 1 to do)" in done("sweep", written(more), "--out", "s")
    other = more.replace("classes = 3", "classes = 4")
    assert "3 cells (3 stale)" in done("sweep", written(other), "--out", "s", "--dry-run")
    done("sweep", written(other), "--out", "s")
    assert Path("s/cells/width=8,seed=0/checkpoints/last.pt").stat().st_mtime_ns == weights


def test_where_a_cell_fails_the_others_are_done_and_it_is_tried_again(here):
    Path("mine.py").write_text(BROKEN)
    Path("broken").touch()
    text = SMALL.replace("[grid]\narch-arg.width = [8, 12]\nseed = [0, 1]", "[grid]\narch-arg.broken = ['', 'broken']")
    text = text.replace("epochs = 2", 'epochs = 2\narch = "mine.py:net"\narch-arg = {width = 8}')
    text = text.replace("arch-arg = {width = 8}", "arch-arg = {width = 8, input_shape = [1, 8, 8], n_classes = 10}")
    text = text.replace('layers = ["logits"]', 'layers = ["3"]\narch = "mine.py:net"')
    code, _, err = run("sweep", written(text), "--out", "s", "--allow", "mine.py:net")
    assert code == 1
    assert "1 of 2 cells failed (broken=broken)" in err
    cells = pd.read_csv("s/cells.csv", keep_default_na=False).set_index("cell")
    assert list(cells["state"]) == ["done", "failed"]
    assert "out of order for today" in cells.loc["broken=broken", "error"]
    assert "Traceback" not in err
    Path("broken").unlink()
    assert "2 cells (1 up to date, 1" in done("sweep", "sweep.toml", "--out", "s", "--allow", "mine.py:net")
    assert list(pd.read_csv("s/cells.csv")["state"]) == ["done", "done"]


def test_an_interrupt_ends_the_sweep_and_not_its_cell_alone(here, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("manigeo_extract.training.trainer.train", interrupted)
    for forced, again in (((), ""), (("--force",), " without --force")):
        code, _, err = run("sweep", written(TWO), "--out", "s", "--jobs", "1", *forced)
        assert (code, "failed" in err) == (130, False)
        assert f"manigeo sweep, given again{again}, goes on where it was interrupted" in err


def test_a_killed_sweep_goes_on_to_the_same_results(here):
    source = written(TWO.replace("epochs = 2", "epochs = 8"))
    done("sweep", source, "--out", "whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "manigeo", "sweep", source, "--out", "killed"], stdout=subprocess.PIPE
    )
    while not list(Path("killed").glob("cells/*seed=1/metrics.csv")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert "up to date" in done("sweep", source, "--out", "killed")
    assert Path("killed/results.csv").read_bytes() == Path("whole/results.csv").read_bytes()


def test_workers_that_are_killed_cost_nothing_but_time(here):
    pytest.importorskip("distributed", reason="needs manigeo[dask]")
    from manigeo.execution.workers import open_workers

    source = written(SMALL)
    done("sweep", source, "--out", "serial")
    cells = sweep_cells(source)
    runs = [here / "dask" / "cells" / cell.name for cell in cells]
    tasks = [(folder, cell_steps(source, folder, cell), False) for folder, cell in zip(runs, cells, strict=True)]
    with open_workers(2, "local") as workers:
        pids = workers.client.run(os.getpid)
        threading.Timer(2.0, os.kill, (next(iter(pids.values())), signal.SIGKILL)).start()
        said = dict(workers.as_completed(carry_out, tasks))
        assert set(workers.client.run(os.getpid).values()) != set(pids.values())
    assert [said[i]["error"] for i in range(4)] == [""] * 4
    for cell, folder in zip(cells, runs, strict=True):
        for name in ("metrics.csv", "analysis/last.capacity.csv"):
            assert (folder / name).read_bytes() == (here / "serial" / "cells" / cell.name / name).read_bytes()


def test_a_cell_that_another_process_works_at_is_left_alone(here, monkeypatch):
    import fcntl

    monkeypatch.setattr("manigeo.cli.cells._LOCK_SECONDS", 0.3)
    source = written(SMALL)
    cell = sweep_cells(source)[0]
    folder = here / "s" / "cells" / cell.name
    folder.mkdir(parents=True)
    with open(folder / "cell.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = carry_out(folder, cell_steps(source, folder, cell), False)
    assert "is being written by another process" in said["error"]
    assert not (folder / "run.json").exists()
