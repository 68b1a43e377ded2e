import os

import numpy as np
import pandas as pd
import pytest

import manigeo
from manigeo import read_results, write_results
from manigeo.errors import InputError, UsageError
from manigeo.results import COLUMNS, as_table


def table(**changes) -> pd.DataFrame:
    row = {
        "run": "r",
        "checkpoint": "last",
        "epoch": 3,
        "layer": "h1",
        "depth": 1,
        "kind": "test",
        "metric": "capacity",
    }
    return as_table(
        [{**row, "value": 0.1 + 0.2, "stderr": 1e-17, "n": 10, **changes}, {**row, "value": np.nan, "flag": "x"}]
    )


def test_the_columns_are_those_of_the_contract_in_order():
    assert tuple(table().columns) == COLUMNS
    assert COLUMNS == (
        "run", "checkpoint", "epoch", "layer", "depth", "kind", "manifold", "metric", "value", "stderr", "n", "flag",
        "settings", "fingerprint",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_table_comes_back_as_it_was_written(tmp_path, suffix):
    written = table(manifold="NA", settings='{"a": 1}', fingerprint="0012")
    write_results(written, tmp_path / f"a{suffix}")
    pd.testing.assert_frame_equal(read_results(tmp_path / f"a{suffix}"), written, check_dtype=False, rtol=1e-15)


def test_a_class_called_na_keeps_its_name_and_an_empty_number_is_missing(tmp_path):
    write_results(table(manifold="NA"), tmp_path / "a.csv")
    read = read_results(tmp_path / "a.csv")
    assert read["manifold"].tolist() == ["NA", ""]
    assert np.isnan(read["value"][1])


def test_a_glob_and_a_list_concatenate(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        write_results(table(value=value), tmp_path / f"{name}.csv")
    together = read_results(str(tmp_path / "*.csv"))
    assert together["value"].dropna().tolist() == [1.0, 2.0]
    assert read_results([tmp_path / "b.csv", tmp_path / "a.csv"])["value"].dropna().tolist() == [2.0, 1.0]


def test_parquet_round_trips_or_names_the_extra(tmp_path):
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"manigeo\[parquet\]"):
            write_results(table(), tmp_path / "a.parquet")
        assert os.listdir(tmp_path) == []
    else:
        write_results(table(), tmp_path / "a.parquet")
        pd.testing.assert_frame_equal(read_results(tmp_path / "a.parquet"), table(), check_dtype=False)


class Unwritable:
    def __str__(self) -> str:
        raise OSError("disk full")


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path):
    target = tmp_path / "a.csv"
    write_results(table(), target)
    before = target.read_bytes()
    with pytest.raises(UsageError, match="exists: give another --out, or --force"):
        write_results(table(value=2.0), target)
    with pytest.raises(OSError, match="disk full"):
        write_results(table().assign(layer=Unwritable()), target, force=True)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.csv"]
    write_results(table(value=2.0), target, force=True)
    assert read_results(target)["value"][0] == 2.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "layer,capacity\nh1,2\n", "no column run, checkpoint"),
        ("a.csv", "", "is an empty file, expected a results table"),
        ("a.csv", ",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n", "not a results table"),
        ("a.csv", "\0\1\2", r"cannot be read|no column"),
        ("a.json", "{", "cannot be read"),
        ("a.xlsx", "x", r"is a file of another program, expected a results table \(\.csv, \.json, \.parquet\)"),
    ],
)
def test_what_is_no_results_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(tmp_path / name)


def test_a_missing_table_names_its_remedy(tmp_path):
    with pytest.raises(InputError, match="does not exist; write it with manigeo capacity"):
        read_results(tmp_path / "none.csv")
    with pytest.raises(InputError, match="no results were named"):
        read_results([])


def test_an_unknown_suffix_or_a_missing_folder_is_refused_before_writing(tmp_path):
    with pytest.raises(UsageError, match=r"results are written as \.csv, \.json, \.parquet"):
        write_results(table(), tmp_path / "a.txt")
    with pytest.raises(UsageError, match="does not exist; make it first"):
        write_results(table(), tmp_path / "none" / "a.csv")


# --------------------------------------------------------------------------------------------------------------- summary
def tables_of(checkpoints=("last",), **more) -> pd.DataFrame:
    return as_table(
        [
            {"run": "r", "checkpoint": checkpoint, "layer": layer, "depth": depth, "kind": kind, "manifold": manifold,
             "metric": metric, "value": depth + 10 * i, "stderr": 0.5, "n": 3, "fingerprint": checkpoint} | more
            for i, checkpoint in enumerate(checkpoints) for depth, layer in enumerate(("z", "a"))
            for kind in ("test", "permuted") for metric in ("radius", "residual", "capacity") for manifold in ("", "cat")
        ]
    )  # fmt: skip


def test_a_summary_has_a_line_a_layer_by_depth_and_a_column_a_metric_and_kind():
    wide = manigeo.summary(tables_of())
    assert wide.index.tolist() == ["z", "a"]
    assert wide.columns.names == ["metric", "kind"]
    assert wide.columns.tolist() == [(m, k) for m in ("capacity", "radius") for k in ("permuted", "test")]
    assert wide["capacity"]["test"].tolist() == [0, 1]
    assert manigeo.summary(tables_of(), ["residual"], "stderr").to_numpy().tolist() == [[0.5] * 2] * 2


def test_a_summary_keeps_checkpoints_and_settings_apart():
    wide = manigeo.summary(pd.concat([tables_of(["first", "last"])] * 2), ["capacity"])
    assert wide.columns.names == ["metric", "kind", "checkpoint"]
    assert wide.xs("last", axis=1, level="checkpoint").to_numpy().tolist() == [[10, 10], [11, 11]]
    sizes = [tables_of(settings=f'{{"per_class": {M}, "seed": 0}}') for M in (10, 20)]
    wide = manigeo.summary(pd.concat(sizes))
    assert wide.columns.names == ["metric", "kind", "per_class"]
    assert wide.shape == (2, 8)


def test_a_summary_of_what_the_table_does_not_have_is_refused_in_one_line():
    with pytest.raises(UsageError, match="metrics must be one of radius, residual, capacity; got 'volume'"):
        manigeo.summary(tables_of(), ["volume"])
    with pytest.raises(InputError, match="no numbers of layers over all classes"):
        manigeo.summary(tables_of().query("manifold == 'cat'"))
    twice = tables_of()
    with pytest.raises(InputError, match="two values of radius of test at z that nothing tells apart"):
        manigeo.summary(pd.concat([twice, twice.assign(value=7.0)]))
