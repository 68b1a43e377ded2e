import numpy as np
import pandas as pd
import pytest

from manigeo import plot_estimators, plot_geometry, plot_sweep
from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.errors import InputError, UsageError
from manigeo.kinds import KINDS
from manigeo.plots import figures_of, save_figure
from manigeo.plots.geometry import PANELS
from manigeo.results import as_table


def geometry_table(checkpoints=(("best", 6), ("last", 40)), layers=4) -> pd.DataFrame:
    return as_table(
        [
            {
                "run": "run", "checkpoint": checkpoint, "epoch": epoch, "layer": f"h{depth}", "depth": depth, "kind": kind,
                "metric": metric, "value": epoch + depth + KINDS.index(kind), "stderr": 0.5, "n": 3,
                "settings": '{"per_class": 25}',
            }
            for checkpoint, epoch in checkpoints for depth in range(layers) for kind in KINDS for metric in PANELS
        ]
    )  # fmt: skip


def test_a_figure_has_a_row_a_measure_a_column_a_checkpoint_and_a_line_a_kind():
    figure = plot_geometry(geometry_table())
    assert len(figure.axes) == 8
    for ax in figure.axes:
        lines = {line.get_label(): line for line in ax.get_lines()}
        assert set(KINDS) <= set(lines)
        assert len(lines["test"].get_xdata()) == 4
    assert [ax.get_title() for ax in figure.axes[:2]] == ["best (epoch 6)", "last (epoch 40)"]
    np.testing.assert_array_equal(figure.axes[1].get_lines()[3].get_ydata(), 40 + np.arange(4) + 3)


def test_bands_are_one_standard_error():
    band = plot_geometry(geometry_table(layers=1)).axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (5.5, 6.5)


def test_the_floor_of_capacity_is_drawn_where_one_size_was_used():
    floor = plot_geometry(geometry_table()).axes[0].get_lines()[-1]
    assert floor.get_label() == "floor = 0.08"  # 2/M, where the table does not name its classes
    assert floor.get_ydata()[0] == 0.08
    few = plot_geometry(geometry_table().assign(settings='{"per_class": 25, "n_classes": 5, "centers": "keep"}'))
    exact = unstructured_capacity(25, n_manifolds=5, estimator="keep")
    assert few.axes[0].get_lines()[-1].get_ydata()[0] == exact < 0.076


def test_runs_of_one_name_are_columns_of_their_own_and_a_table_given_twice_is_one():
    one, other = geometry_table().assign(fingerprint="a"), geometry_table().assign(fingerprint="b")
    assert len(plot_geometry(pd.concat([one, other])).axes) == 16
    assert len(plot_geometry(pd.concat([one, one])).axes) == 8


def test_layers_at_two_settings_are_not_drawn_as_one_line():
    other = geometry_table().assign(settings='{"per_class": 20}')
    with pytest.raises(
        InputError, match=r"at different settings \(per_class 25 in place of 20\): plot one of the settings"
    ):
        plot_geometry(pd.concat([geometry_table(), other]))


def test_a_table_of_another_program_is_drawn_without_a_floor():
    figure = plot_geometry(geometry_table().assign(settings="M=20"))
    assert not [line for line in figure.axes[0].get_lines() if str(line.get_label()).startswith("floor")]


def test_many_layers_keep_their_names_legible():
    figure = plot_geometry(geometry_table(layers=60))
    assert len(figure.axes[-1].get_xticklabels()) <= 14


def test_a_table_without_geometry_is_refused():
    with pytest.raises(InputError, match="nothing to plot"):
        plot_geometry(as_table([{"metric": "accuracy", "value": 1.0}]))


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, suffix):
    contents = []
    for name in ("a", "b"):
        save_figure(plot_geometry(geometry_table()), tmp_path / f"{name}{suffix}", dpi=40)
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert contents[0] == contents[1]


def test_an_unknown_format_or_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"figures are written as \.png, \.pdf, \.svg"):
        save_figure(plot_geometry(geometry_table()), tmp_path / "a.bmp")
    with pytest.raises(UsageError, match="does not exist; make it first"):
        save_figure(plot_geometry(geometry_table()), tmp_path / "none" / "a.png")


# --------------------------------------------------------------------------------------------- estimators and samples
def estimator_table(values=(0.2, 0.19, 0.21), flags=("", "", ""), checkpoints=(("last", 40),)) -> pd.DataFrame:
    metrics = ("capacity", "capacity_joint", "capacity_simulated")
    return as_table(
        [
            {
                "run": "run", "checkpoint": checkpoint, "epoch": epoch, "layer": f"h{depth}", "depth": depth, "kind": kind,
                "metric": metric, "value": value, "stderr": 0.01, "n": 3, "flag": flag if depth else "",
                "settings": f'{{"analysis": "{metric}", "per_class": 25, "n_classes": 30}}',
            }
            for checkpoint, epoch in checkpoints for depth in range(3) for kind in KINDS
            for metric, value, flag in zip(metrics, values, flags, strict=True)
        ]
    )  # fmt: skip


def sweep_table(sizes=(5, 10, 20), **of_kind) -> pd.DataFrame:
    return as_table(
        [
            {
                "run": "run", "checkpoint": "last", "epoch": 40, "layer": f"h{depth}", "depth": depth, "kind": kind,
                "metric": "capacity_sweep", "value": 2.5 / M, "stderr": 0.01, "n": 3,
                "settings": f'{{"analysis": "sweep", "per_class": {M}, "n_classes": 30}}',
            }
            for depth in range(5) for kind in KINDS for M in of_kind.get(kind, sizes)
        ]
    )  # fmt: skip


def curves(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()} | {
        bars.get_label(): bars.lines[0].get_ydata() for bars in ax.containers
    }


def test_estimators_are_curves_in_one_panel_a_kind():
    figure = plot_estimators(estimator_table(checkpoints=(("best", 6), ("last", 40))))
    assert [ax.get_title() for ax in figure.axes[:4]] == list(KINDS)
    assert len(figure.axes) == 8
    for ax in figure.axes:
        drawn = curves(ax)
        for name, value in (("mean field", 0.2), ("joint", 0.19), ("simulated", 0.21)):
            np.testing.assert_array_equal(drawn[name], [value] * 3)
        floors = [line.get_ydata()[0] for line in ax.get_lines() if line.get_label() == "floor of each estimator"]
        assert floors == [
            unstructured_capacity(25, n_manifolds=30, estimator=e) for e in ("auto", "joint", "simulated")
        ]


def test_a_saturated_value_is_off_its_curve():
    drawn = curves(plot_estimators(estimator_table(flags=("", "saturated", ""))).axes[0])
    np.testing.assert_array_equal(drawn["joint"], [0.19, np.nan, np.nan])
    np.testing.assert_array_equal(drawn["joint, saturated"], [0.19, 0.19])


def test_one_estimator_is_no_comparison():
    table = estimator_table()
    with pytest.raises(InputError, match="add --simulate or --joint to manigeo capacity"):
        plot_estimators(table[table["metric"] == "capacity"])


def test_a_sweep_is_a_panel_a_layer_against_the_number_of_points():
    figure = plot_sweep(sweep_table())
    assert [ax.get_title() for ax in figure.axes] == ["h0", "h1", "h2", "h3", "h4"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    np.testing.assert_array_equal(lines["permuted"].get_xdata(), [5, 10, 20])
    np.testing.assert_allclose(lines["permuted"].get_ydata(), [0.5, 0.25, 0.125])
    floors = [unstructured_capacity(M, n_manifolds=30) for M in (5, 10, 20)]
    np.testing.assert_allclose(lines["floor"].get_ydata(), floors)


def test_kinds_swept_over_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"at h0 kinds were swept over different .*--sweep-examples"):
        plot_sweep(sweep_table(permuted=(5, 10)))


@pytest.mark.parametrize("setting", ["per_class", "n_classes"])
def test_kinds_at_different_sizes_are_refused(setting):
    table = geometry_table().assign(settings='{"n_classes": 9, "per_class": 9}')
    table.loc[table["kind"] == "permuted", "settings"] = table["settings"].str.replace(
        f'"{setting}": 9', f'"{setting}": 8'
    )
    with pytest.raises(InputError, match=r"compares different numbers of classes or examples.*--per-class"):
        plot_geometry(table)


def test_a_table_has_the_figures_that_it_has_numbers_for():
    assert figures_of(geometry_table()) == ["geometry"]
    assert figures_of(pd.concat([estimator_table(), sweep_table()])) == ["geometry", "estimators", "sweep"]
    assert figures_of(estimator_table(values=(np.nan, np.nan, np.nan))) == []
