"""How objects show themselves: figures in a notebook or in axes that are given; results as a line, a table, a figure."""

import gc
import pickle
import re
import weakref
from contextlib import suppress
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import manigeo
from manigeo import plot_geometry
from manigeo.errors import InputError, UsageError
from manigeo.plots import FIGURES, figures_of
from manigeo.plots.results import draw_result
from manigeo.plots.style import DRAWINGS
from manigeo.separability.margins import one_versus_rest
from manigeo.text.cells import measured
from tests.drawn import TABLES
from tests.test_plots import geometry_table
from tests.test_separations import write

drawings = pytest.mark.parametrize("name", DRAWINGS)


def panels(figure: Figure) -> list:
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def texts(ax) -> list[str]:
    return [ax.get_xlabel(), ax.get_ylabel(), *(label.get_text() for label in ax.get_xticklabels())]


@drawings
def test_a_figure_shows_itself_and_pyplot_does_not_know_it(name):
    figure = DRAWINGS[name].draw(TABLES[name])
    assert hasattr(figure, "_repr_png_")
    assert all(ax.has_data() for ax in panels(figure))
    assert plt.get_fignums() == []


@drawings
def test_a_figure_is_drawn_into_as_many_axes_as_it_has_panels(name):
    draw, table = DRAWINGS[name].draw, TABLES[name]
    own = panels(draw(table))
    given = np.array([Figure().subplots(1, len(own), squeeze=False)[0]])
    assert draw(table, ax=given) is given
    for mine, theirs in zip(own, given.flat, strict=True):
        assert theirs.has_data()
        assert len(theirs.get_lines()) == len(mine.get_lines())
        named = theirs.get_xticklabels()[0].get_text() in ("h1", "unpermuted")  # names that stand for themselves
        assert theirs.get_xlabel() or named
    with pytest.raises(UsageError, match=rf"{name} has {len(own)} panels? for this table, got {len(own) + 1} axes"):
        draw(table, ax=list(Figure().subplots(1, len(own) + 1)))


@drawings
def test_a_metric_is_a_panel_of_its_own_where_panels_are_metrics(name):
    draw, table = DRAWINGS[name].draw, TABLES[name]
    with pytest.raises(UsageError, match=r"metric must be one of|not of single metrics") as refused:
        draw(table, metric="nothing")
    if "must be one of" in str(refused.value):
        metric = str(refused.value).split("one of ")[1].split(",")[0].split(";")[0]
        part = table[table["fingerprint"] == table["fingerprint"].iloc[0]] if name == "separability" else table
        part = part[part["layer"] == part["layer"].iloc[0]] if name.startswith("gradient") else part
        part = part[part["checkpoint"] == part["checkpoint"].iloc[0]] if name != "progress" else part
        ax = Figure().subplots()
        assert draw(part, ax=ax, metric=metric) is ax
        assert ax.get_ylabel()


def test_one_panel_is_drawn_into_axes_that_keep_their_title_and_have_the_legend():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.set_title("mine")
    table = geometry_table(checkpoints=(("", 3),)).assign(epoch=np.nan)
    assert plot_geometry(table, ax=left, metric="capacity") is left
    assert left.get_title() == "mine"
    assert [text.get_text() for text in left.get_legend().get_texts()][:2] == ["unpermuted", "permuted"]
    assert not right.has_data()
    assert texts(left) == ["layer", "capacity $\\alpha_M$", "h0", "h1", "h2", "h3"]


def test_axes_of_another_number_or_kind_are_refused_with_what_to_do():
    figure, table = Figure(), geometry_table(checkpoints=(("last", 3),))
    with pytest.raises(
        UsageError, match=r"4 panels .* got 1 axes: give ax an array of 4.*metric= one of capacity, rad"
    ):
        plot_geometry(table, ax=figure.subplots())
    with pytest.raises(UsageError, match="ax must be matplotlib axes, or an array or list of them, got Figure"):
        plot_geometry(table, ax=figure, metric="capacity")
    with pytest.raises(UsageError, match="takes axes of one figure"):
        plot_geometry(table, ax=[Figure().subplots() for _ in range(4)])


def test_a_figure_is_pickled_and_freed_when_nobody_holds_it():
    figure = plot_geometry(geometry_table(layers=2))
    image, size = figure._repr_png_()
    assert image.startswith(b"\x89PNG")
    assert size["width"] == pytest.approx(96 * figure.get_figwidth(), abs=1)
    assert hasattr(pickle.loads(pickle.dumps(figure)), "_repr_png_")
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None


def test_words_of_training_do_not_stand_in_figures_of_other_data():
    table = geometry_table(checkpoints=(("", 3),)).query("kind == 'test'").assign(kind="area", run="", epoch=np.nan)
    figure = plot_geometry(table)
    assert [ax.get_title() for ax in figure.axes] == [""] * 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["floor = 0.08"]
    two = plot_geometry(geometry_table(checkpoints=(("", 3), ("", 4))))
    assert [ax.get_title() for ax in two.axes[:2]] == ["epoch 3", "epoch 4"]


def test_figures_of_several_tables_without_names_are_told_apart():
    table = geometry_table(checkpoints=(("", 3),)).assign(epoch=np.nan, run="")
    both = [table.assign(fingerprint=name) for name in "ab"]
    figure = plot_geometry(pd.concat(both))
    assert [ax.get_title() for ax in figure.axes[:2]] == ["[1]", "[2]"]


def test_a_result_without_a_figure_is_refused_with_those_that_have_one():
    with pytest.raises(TypeError, match="dict has no figure; these have one: ManifoldCapacity, "):
        draw_result({})


@pytest.mark.parametrize(
    ("name", "metric"), [("rewind", "regained"), ("reinit", "critical"), ("reinit", "normalised_drop")]
)
def test_interventions_that_found_nothing_lost_or_known_have_their_figure(name, metric):
    drops = TABLES[name].assign(metric="accuracy_drop")
    nothing = drops.assign(metric=metric, value=np.nan)
    table = pd.concat([TABLES[name], drops, nothing])
    assert figures_of(table) == [name]
    FIGURES[name].draw(table)


@pytest.mark.parametrize("name", ["correlation", "localization", "depth", "channels"])
def test_a_table_without_some_of_its_rows_is_drawn_or_refused(name):
    table, drawn = TABLES[name], 0
    parts = [table[table[column] != value] for column in ("metric", "run", "layer") for value in table[column].unique()]
    for part in parts:
        with suppress(InputError):  # a report, which takes the rows of its runs, goes on after it
            DRAWINGS[name].draw(part)
            drawn += name in figures_of(part)
    assert 0 < drawn < len(parts)
    with pytest.raises(InputError, match=r"nothing to plot: the table has no rows of .*; give it whole"):
        DRAWINGS[name].draw(table[~table["metric"].isin(DRAWINGS[name].needs)])


def test_every_figure_has_a_table_here():
    assert set(TABLES) == set(FIGURES)


# ------------------------------------------------------------------------------------------------------------- results
RNG = np.random.default_rng(0)
CLOUDS = [RNG.normal(size=12) + RNG.normal(size=(6, 12)) for _ in range(4)]
X, Y = np.concatenate(CLOUDS), np.repeat(["<b>cat</b>", "dog", "owl", "ant"], 6)


def results() -> dict[str, object]:
    return {
        "frame": manigeo.frame_geometry(CLOUDS[0], n_draws=20, seed=0),
        "mean field": manigeo.manifold_capacity(CLOUDS, n_draws=20, seed=0),
        "joint": manigeo.joint_capacity(CLOUDS, n_draws=10, seed=0),
        "simulated": manigeo.simulated_capacity(CLOUDS, n_dichotomies=50, seed=0),
        "dimension": manigeo.total_dimension(CLOUDS),
        "probe": manigeo.linear_probe(X, Y, seed=0),
        "clusters": manigeo.cluster_agreement(X, Y, n_seeds=2, seed=0),
        "neighbours": manigeo.neighbour_purity(X, Y, k=3)[0],
        "margins": one_versus_rest(X, Y),
    }


@pytest.fixture(scope="module")
def found():
    return results()


def test_a_result_is_one_short_line_with_its_numbers_and_errors(found):
    for result in found.values():
        assert re.fullmatch(r"[A-Z]\w+\(\w+=[^\n]+\)", repr(result)), repr(result)
        assert len(repr(result)) < 200
    r = found["mean field"]
    capacity, error = measured(r.capacity, r.stderr.capacity)
    assert repr(r).startswith(f"ManifoldCapacity(capacity={capacity} {error}, radius=")


def test_a_flag_stands_in_the_line_and_its_sentence_in_the_notebook():
    left = manigeo.manifold_capacity([CLOUDS[0][:4], *CLOUDS[1:]], n_draws=10)
    assert "flag='unequal_points:4-6;left_out:6'" in repr(left)
    assert "different numbers of points" in left._repr_html_()


def test_numbers_of_a_result_are_a_table_with_their_errors(found):
    r = found["mean field"]
    assert r.table.loc["radius"].tolist() == [r.radius, r.stderr.radius]
    assert np.isnan(r.table.loc["rank", "stderr"])
    for result in found.values():
        assert list(result.table.columns) == ["value", "stderr"]
        assert len(result.table) >= len(result.headline) >= 3


def test_a_notebook_shows_every_number_of_a_result_by_its_name_and_nothing_else(found):
    html = found["mean field"]._repr_html_()
    assert all(name in html for name in ("centre correlation", "± ", "per_manifold (4 x "))
    for result in found.values():
        tree = ElementTree.fromstring(result._repr_html_())
        assert {element.tag for element in tree.iter()} == {"div", "b", "table", "tr", "td"}


def test_results_are_drawn_into_axes_or_a_figure_of_their_own(found):
    drawn = {name: result for name, result in found.items() if hasattr(result, "plot")}
    assert set(found) - set(drawn) == {"frame"}
    for result in drawn.values():
        ax = Figure().subplots()
        assert result.plot(ax=ax) is ax
        (own,) = result.plot().axes
        assert own.has_data()
        assert own.get_ylabel() == ax.get_ylabel() != ""
    means = found["mean field"].plot().axes[0].get_lines()
    assert found["mean field"].capacity in [line.get_ydata()[0] for line in means]


def test_the_accuracy_of_a_probe_is_the_mean_over_classes(found):
    probe = found["probe"]
    right = [np.mean(probe.predicted[name == Y] == name) for name in probe.classes]
    np.testing.assert_allclose(probe.per_class, right)
    assert probe.accuracy == pytest.approx(np.mean(right))


def test_a_plan_says_what_it_is_of_and_escapes_its_names(tmp_path):
    path = write(tmp_path / "<i>acts.h5")
    plan = manigeo.plan_capacity(path, kinds=["test"], n_draws=10)
    assert re.fullmatch(r"<Plan of capacity of .*: 3 layers x 1 kinds \(test\), P = \d+ .* tasks>", repr(plan))
    assert "&lt;i&gt;acts.h5" in plan._repr_html_()
    assert len(plan.table) == len(plan.tasks)
    assert list(plan.table.columns) == ["layer", "kind", "measure", "features", "n_classes", "per_class"]


SHOWN = (
    "import numpy as np, manigeo\n"
    "rng = np.random.default_rng(0)\n"
    "r = manigeo.manifold_capacity([rng.normal(size=50) + rng.normal(size=(20, 50)) for _ in range(12)], n_draws=20)\n"
    "r",
    "import pandas as pd\n"
    "row = dict(run='', checkpoint='', epoch=0, kind='test', manifold='', stderr=.1, n=12, flag='', fingerprint='')\n"
    "row['settings'] = '{\"per_class\": 20}'\n"
    "rows = [row | dict(layer=f'h{d}', depth=d, metric=m, value=1.0 + d) for d in range(3)\n"
    "        for m in ('capacity', 'radius', 'dimension')]\n"
    "manigeo.plot_geometry(pd.DataFrame(rows))",
    "import matplotlib.pyplot as plt\nr.plot()",
    "from manigeo.faces.progress import track\nfor _ in track(range(3), 'capacity', 'layer'): pass",
)


def test_a_notebook_shows_a_table_an_image_once_and_a_bar_without_any_magic(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in SHOWN])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    result, figure, with_pyplot, bar = ([dict(out) for out in cell.outputs] for cell in notebook.cells)
    assert "<table" in result[0]["data"]["text/html"]
    assert result[0]["data"]["text/plain"].startswith("ManifoldCapacity(capacity=")
    for outputs in (figure, with_pyplot):  # pyplot brings a way of its own to show figures
        assert [sorted(out["data"]) for out in outputs] == [["image/png", "text/plain"]]
    assert figure[0]["metadata"]["image/png"]["width"] > 400
    assert [out for out in bar if out["output_type"] != "stream" or out["name"] != "stderr"] == []
    assert "3/3" in "".join(out["text"] for out in bar)
