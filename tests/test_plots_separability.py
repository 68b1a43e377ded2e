"""Figures of separability."""

import json

import numpy as np
import pandas as pd
import pytest

from manigeo import plot_fuzziness, plot_memorization, plot_progress, plot_separability, plot_transfer
from manigeo.errors import InputError
from manigeo.kinds import KINDS, UNSEEN
from manigeo.plots import figures_of
from manigeo.plots.separability import SEPARABILITY_PANELS
from manigeo.results import as_table

OF_NETWORKS = (*KINDS, UNSEEN)
CHECKPOINTS = (("best", 6), ("last", 40))


def place(checkpoint: str, epoch: int, depth: int, kind: str) -> dict[str, object]:
    identity = {"run": "run", "checkpoint": checkpoint, "epoch": epoch, "fingerprint": checkpoint}
    return identity | {"layer": f"h{depth}", "depth": depth, "kind": kind, "n": 3}


def measured(metrics=tuple(SEPARABILITY_PANELS), kinds=OF_NETWORKS, checkpoints=CHECKPOINTS, layers=3) -> pd.DataFrame:
    rows = []
    for checkpoint, epoch in checkpoints:
        for depth in range(layers):
            for i, kind in enumerate(kinds):
                where = place(checkpoint, epoch, depth, kind) | {"settings": json.dumps({"n_classes": 3})}
                for metric in metrics:
                    value = (epoch + 10 * i + depth) / 100
                    rows.append(where | {"metric": metric, "value": value, "stderr": 0.01})
                    rows.append(where | {"metric": f"{metric}_chance", "value": 0.5 if kind == "unseen" else 0.1})
                    rows.append(where | {"metric": f"{metric}_ceiling", "value": 1.0})
    return as_table(rows)


def transfers(kinds=KINDS) -> pd.DataFrame:
    rows = [
        place("last", 40, depth, kind)
        | {"metric": "transfer_accuracy", "value": 0.1 * i + 0.01 * j, "settings": json.dumps({"trained_on": origin})}
        for depth in range(3) for i, origin in enumerate(kinds) for j, kind in enumerate(kinds) if origin != kind
    ]  # fmt: skip
    return pd.concat([measured(["probe_accuracy"], kinds, CHECKPOINTS[1:]), as_table(rows)], ignore_index=True)


def capacities(checkpoints=CHECKPOINTS) -> pd.DataFrame:
    return as_table(
        [
            place(checkpoint, epoch, depth, "permuted") | {"metric": metric, "value": value, "stderr": 0.01}
            for checkpoint, epoch in checkpoints for depth in range(3)
            for metric, value in (("capacity", 0.1 + depth / 100), ("capacity_floor", 0.08))
        ]
    )  # fmt: skip


def test_profiles_are_a_row_a_measure_a_column_a_checkpoint_and_a_line_a_kind():
    figure = plot_separability(measured())
    assert len(figure.axes) == 2 * len(SEPARABILITY_PANELS)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["best (epoch 6)", "last (epoch 40)"]
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    assert set(OF_NETWORKS) <= set(lines)
    np.testing.assert_allclose(lines["permuted"].get_ydata(), [0.5, 0.51, 0.52])


def test_bands_are_95_percent_and_the_best_layer_has_a_star():
    ax = plot_separability(measured(kinds=["test"])).axes[0]
    edge = ax.collections[0].get_paths()[0].vertices
    assert edge[:, 1].max() == pytest.approx(0.08 + 1.96 * 0.01)
    (star,) = [line for line in ax.get_lines() if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (2, 0.08)


def test_chance_is_one_line_where_kinds_share_it_and_one_a_kind_where_they_do_not():
    def chances(kinds):
        levels = [
            line for line in plot_separability(measured(kinds=kinds)).axes[0].get_lines() if line.get_linestyle() == ":"
        ]
        return [line.get_ydata()[0] for line in levels]

    assert chances(KINDS) == pytest.approx([0.1])
    assert sorted(chances(OF_NETWORKS)) == pytest.approx([0.1] * 4 + [0.5])


def test_progress_is_a_line_a_layer_over_epochs():
    figure = plot_progress(measured(kinds=["test", "unseen"]))
    assert [ax.get_title() for ax in figure.axes[:2]] == ["test", "unseen"]
    lines = [line for line in figure.axes[1].get_lines() if line.get_linestyle() == "-"]
    assert len(lines) == 3
    np.testing.assert_allclose(lines[2].get_xdata(), [6, 40])
    np.testing.assert_allclose(lines[2].get_ydata(), [0.18, 0.52])
    with pytest.raises(InputError, match="one epoch is no curve"):
        plot_progress(measured(checkpoints=CHECKPOINTS[:1]))


def test_outputs_are_no_part_of_the_law_of_separation():
    table = measured(["separation_fuzziness"], ["test"], CHECKPOINTS[:1], layers=4)
    line = table["metric"] == "separation_fuzziness"
    table.loc[line, "value"] = [8.0, 4.0, 2.0, 500.0]
    table.loc[line & (table["layer"] == "h3"), "flag"] = "few_features:10"
    (ax,) = plot_fuzziness(table).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["test", "test: r = -1.000"]
    for drawn in ax.get_lines():
        np.testing.assert_allclose(drawn.get_ydata(), [8.0, 4.0, 2.0])
    assert figures_of(table) == ["fuzziness"]
    (alone,) = plot_fuzziness(table[table["layer"] == "h3"]).axes
    assert [line.get_ydata().tolist() for line in alone.get_lines()] == [[500.0]]


def test_a_map_has_who_was_trained_below_who_was_scored_and_folds_on_its_diagonal():
    figure = plot_transfer(transfers())
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in maps] == ["h0", "h1", "h2"]
    shown = maps[0].collections[0].get_array().reshape(4, 4)
    assert shown[0, 1] == pytest.approx(0.01)
    assert shown[1, 0] == pytest.approx(0.1)
    np.testing.assert_allclose(np.diag(shown), [0.4, 0.5, 0.6, 0.7])
    more = pd.concat([transfers().assign(layer=name, depth=k) for k, name in enumerate("abcde")])
    panels = plot_transfer(more.drop_duplicates(["layer", "kind", "settings"])).axes[:5]
    rows = {ax.get_subplotspec().rowspan.start for ax in panels}
    assert rows == {0, 1}  # maps of one checkpoint are legible: four in a row
    with pytest.raises(InputError, match="no probes scored on other kinds"):
        plot_transfer(measured(["probe_accuracy"]))


def test_memorization_pairs_probe_and_capacity_of_the_same_activations():
    table = pd.concat([measured(), capacities()], ignore_index=True)
    figure = plot_memorization(table)
    relation = figure.axes[-1].get_lines()
    np.testing.assert_allclose(relation[1].get_xdata(), [0.1, 0.11, 0.12])
    np.testing.assert_allclose(relation[1].get_ydata(), [0.5, 0.51, 0.52])
    assert len(figure.axes) == 2 * 2 + 1
    other = capacities().assign(fingerprint="of another file")
    with pytest.raises(InputError, match="tables of the same activations"):
        plot_memorization(pd.concat([measured(), other], ignore_index=True))


def test_a_table_has_the_figures_of_separability_that_it_has_numbers_for():
    assert figures_of(measured(checkpoints=CHECKPOINTS[:1])) == ["separability"]
    assert figures_of(measured()) == ["separability", "progress"]
    assert "transfer" in figures_of(transfers())
    assert "memorization" in figures_of(pd.concat([measured(), capacities()]))


def test_two_settings_are_not_drawn_as_one_line():
    other = measured().assign(settings='{"n_classes": 4}')
    with pytest.raises(InputError, match="at different settings"):
        plot_separability(pd.concat([measured(), other]))


def test_a_table_without_separability_is_refused():
    with pytest.raises(InputError, match="make it with manigeo separability"):
        plot_separability(capacities())
