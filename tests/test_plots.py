import numpy as np
import pandas as pd
import pytest

from manigeo import plot_geometry
from manigeo.errors import InputError, UsageError
from manigeo.manifolds import KINDS
from manigeo.plots import PANELS, save_figure
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
    assert floor.get_label() == "floor 2/M = 0.08"
    assert floor.get_ydata()[0] == 0.08


def test_runs_of_one_name_are_columns_of_their_own_and_a_table_given_twice_is_one():
    one, other = geometry_table().assign(fingerprint="a"), geometry_table().assign(fingerprint="b")
    assert len(plot_geometry(pd.concat([one, other])).axes) == 16
    assert len(plot_geometry(pd.concat([one, one])).axes) == 8


def test_layers_at_two_settings_are_not_drawn_as_one_line():
    other = geometry_table().assign(settings='{"per_class": 20}')
    with pytest.raises(InputError, match="at different settings: plot one of the settings"):
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
