"""Tables of one network that were measured in two ways, of which one is read."""

import json
import shutil

import pandas as pd
import pytest

from manigeo.errors import InputError
from manigeo.localization.evidence import METHODS
from manigeo.localization.measurements import check_networks, measured_once, measured_otherwise
from manigeo.results import as_table, write_results
from manigeo.runs import RunFolder, find_tables, run_tables
from tests.command_line import run
from tests.test_runs import trained

LAYERS = ("h1", "h2", "h3")


def capacities(values, per_class=20, activations="a", epoch=9, **settings):
    said = json.dumps({"analysis": "mean_field", "per_class": per_class, "n_classes": 5, "centers": "auto"} | settings)
    place = {"run": "run", "epoch": epoch, "kind": "permuted", "metric": "capacity", "n": 9, "fingerprint": activations}
    return as_table([
        place | {"layer": layer, "depth": depth, "manifold": str(i), "value": value, "settings": said}
        for depth, (layer, value) in enumerate(zip(LAYERS, values, strict=True)) for i in range(5)
    ])  # fmt: skip


def exchanged(values, group_by="module", sweep="each", **settings):
    said = {"analysis": "rewind", "sweep": sweep, "to": "before", "to_epoch": 2, "direction": "into_last"}
    said |= {"group_by": group_by, "seed": 0} | settings
    metric = "accuracy_drop_beyond_control" if sweep == "retrain" else "accuracy_drop"
    layers = [f"{layer}{'.linear' * (group_by == 'layer')}" for layer in LAYERS]
    return as_table([
        {"run": "run", "epoch": 9, "kind": kind, "metric": metric, "value": value * (kind == "permuted"), "n": 9,
         "layer": layer, "depth": depth, "fingerprint": "f", "settings": json.dumps(said | {"k": 1})}
        for depth, (layer, value) in enumerate(zip(layers, values, strict=True)) for kind in ("permuted", "unpermuted")
    ])  # fmt: skip


def shares(table, method="geometry"):
    return METHODS[method].read(table, 2.0).evidence.mean().tolist()


@pytest.fixture
def folder(tmp_path):
    """The folder of a run, in one of its own."""
    return trained(tmp_path / "run").path


def written(path, table, folder):
    path.parent.mkdir(exist_ok=True)
    write_results(as_table([row | {"run_id": RunFolder(folder).identity} for row in table.to_dict("records")]), path)
    return path


OTHERS = {
    "another number of examples": (capacities([0.1, 0.3, 0.5], per_class=10), "per_class 10 in place of 20"),
    "another number of draws": (capacities([0.1, 0.3, 0.5], n_draws=9), "n_draws 9 in place of null"),
    "another readout": (capacities([0.1, 0.3, 0.5], activations="b"), "capacities of other activations"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_capacities_measured_in_another_way_are_left_out_and_told(folder, name):
    own, (other, difference) = capacities([0.1, 0.1, 0.5]), OTHERS[name]
    written(folder / "analysis" / "z.csv", own, folder)
    written(folder / "a.csv", other, folder)
    written(folder.parent / "b.csv", other, folder)
    found = measured_once(run_tables(folder))
    assert {path.name for path in found.left_out} == {"a.csv", "b.csv"}
    assert all(difference in why and "than in z.csv" in why for why in found.left_out.values())
    assert shares(found.table) == shares(own) != shares(other)


def test_blocks_are_not_read_together_with_the_layers_in_them(folder):
    own, parts = exchanged([0.5, 0, 0]), exchanged([0, 0, 0.5], group_by="layer")
    written(folder / "analysis" / "rewind.csv", own, folder)
    written(folder.parent / "parts.csv", parts, folder)
    found = measured_once(run_tables(folder))
    assert 'rewound layers measured otherwise (group_by "layer" in place of "module")' in str(found.left_out)
    assert METHODS["rewinding"].read(found.table, 2.0).layers == LAYERS


@pytest.mark.parametrize("name", OTHERS)
def test_of_two_tables_in_one_place_none_is_chosen(folder, name):
    other, difference = OTHERS[name]
    written(folder / "a.csv", capacities([0.1, 0.1, 0.5]), folder)
    written(folder / "b.csv", other, folder)
    with pytest.raises(
        InputError, match=rf"b\.csv has .*{difference}.* than in a\.csv.*move one of them out of the folder"
    ):
        measured_once(run_tables(folder))


def test_tables_that_were_named_have_no_order(folder):
    names = [written(folder / "analysis" / "a.csv", capacities([0.1, 0.1, 0.5]), folder),
             written(folder.parent / "b.csv", OTHERS["another readout"][0], folder)]  # fmt: skip
    with pytest.raises(InputError, match="name the tables that belong together"):
        measured_once(find_tables(names), named=True)
    code, _, error = run("localize", *names, "--out", folder.parent / "l.csv")
    assert (code, error.count("\n")) == (3, 1)


def test_tables_that_complete_each_other_are_read_together(folder):
    null = capacities([0.9, 0.9, 0.9], per_class=10, null="shuffled")
    tables = {
        "a": capacities([0.1, 0.1, 0.5]), "b": capacities([0.1, 0.1, 0.1], activations="b", epoch=2), "c": null,
        "d": exchanged([0.5, 0, 0]), "e": exchanged([0.4, 0, 0], sweep="prefix"),
        "f": exchanged([0.5, 0.1, 0], sweep="retrain", steps=200, lr=0.02),
    }  # fmt: skip
    for name, table in tables.items():
        written(folder / f"{name}.csv", table, folder)
    found = measured_once(run_tables(folder))
    assert not found.left_out
    assert len(found.table) == sum(map(len, tables.values()))
    assert shares(found.table, "retraining") == [0.5, 0.1, 0]


def test_a_part_of_a_table_is_left_out(folder):
    own, other = capacities([0.1, 0.1, 0.5]), capacities([0.1, 0.3, 0.5], per_class=10)
    written(folder / "analysis" / "a.csv", own, folder)
    written(folder / "both.csv", pd.concat([other, exchanged([0.5, 0, 0])], ignore_index=True), folder)
    found = measured_once(run_tables(folder))
    assert shares(found.table, "rewinding") == [0.5, 0, 0]
    assert shares(found.table) == shares(own)


def test_a_method_refuses_a_table_of_two_measurements():
    table = pd.concat([capacities([0.1, 0.1, 0.5]), OTHERS["another readout"][0]], ignore_index=True)
    with pytest.raises(InputError, match="the table holds capacities of other activations than others"):
        METHODS["geometry"].read(table)
    assert METHODS["rewinding"].read(table) is None


def network(folder, seed=0, values=(0.1, 0.1, 0.5), per_class=20, **options):
    """The folder of a run that has memorized, with capacities before and after."""
    folder.parent.mkdir(exist_ok=True)
    path = trained(folder, seed, **options).path
    metrics = pd.read_csv(path / "metrics.csv")
    metrics.loc[(metrics["epoch"] == 1) & (metrics["kind"] == "permuted"), "accuracy"] = 0.0
    metrics = pd.concat([metrics, metrics[metrics["kind"] == "test"].assign(kind="validation")])
    metrics.to_csv(path / "metrics.csv", index=False)
    of_both = (capacities([0.1] * 3, per_class, "b", epoch=1), capacities(values, per_class, epoch=2))
    written(path / "analysis" / "c.csv", pd.concat(of_both, ignore_index=True), path)
    return path


def test_a_network_counts_once(tmp_path):
    one = network(tmp_path / "one")
    shutil.copytree(one, tmp_path / "copy")
    mistakes = {
        (one, tmp_path / "copy"): "are of one network, which would count twice: leave one out",
        (one, one / "analysis" / "c.csv"): "are of one network, which would count twice: leave one out",
        (one / "analysis" / "c.csv", network(tmp_path / "two", seed=1) / "analysis" / "c.csv"):
            ": tables of 2 networks (run@",
    }  # fmt: skip
    for given, words in mistakes.items():
        code, _, error = run("localize", *given, "--out", tmp_path / "l.csv")
        assert (code, words in error, error.count("\n")) == (3, True, 1), error
    assert run("localize", one, tmp_path / "two", "--out", tmp_path / "l.csv")[0] == 0


def test_tables_without_an_identity_are_told_apart_by_the_names_of_their_runs():
    table = capacities([0.1, 0.1, 0.5])
    check_networks({"a": table, "b": table.assign(run="another"), "c": table.assign(run="")})
    with pytest.raises(InputError, match=r"a: tables of 2 networks \(another, run\)"):
        check_networks({"a": pd.concat([table, table.assign(run="another"), table.assign(run="")])})


def test_runs_of_two_architectures_are_not_localized_together(tmp_path):
    folders = [network(tmp_path / name, i, arch="mlp", arch_args={"depth": i}) for i, name in enumerate("ab")]
    code, _, error = run("localize", *folders, "--out", tmp_path / "l.csv")
    assert (code, error.count("\n")) == (2, 1)
    assert "the runs are of different networks: mlp depth=0 " in error


def test_runs_that_were_measured_otherwise_are_named(tmp_path):
    folders = [network(tmp_path / "a"), network(tmp_path / "b", 1, per_class=10)]
    code, _, said = run("localize", *folders, "--out", tmp_path / "l.csv")
    told = (
        f"note: capacities of {folders[1]} measured otherwise than those of {folders[0]} (per_class 10 in place of 20)"
    )
    assert (code, told in said) == (0, True)
    assert not measured_otherwise({"a": capacities([0.1] * 3, seed=1), "b": capacities([0.1] * 3, seed=2)})
