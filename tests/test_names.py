"""Names from files, hostile ones: shown by terminals, written into tables, read back."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo import create_activations
from manigeo.errors import InputError
from manigeo.results import as_table, read_results, write_results
from manigeo.storage.spreadsheets import as_cell, as_cells, as_named, as_names
from manigeo.text.visible import visible
from tests.command_line import done, run
from tests.test_activations import grouped_examples, stored

# clears a terminal, sets its title, goes back in a line, turns it round, ends it, hides letters: C0, C1, bidi, no width
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b2J\rb\u202ec\u2066\nforged: line\u2028d\u200be\ufefff\x7f"
STEERING = set(HOSTILE) - set("a[2J]0;titlebcforged: line") - {"\n"}


def check_shown(text: str) -> None:
    assert not STEERING & set(text), sorted(STEERING & set(text))
    assert "\nforged" not in text
    assert "forged" in text


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(HOSTILE))))
def test_a_text_is_visible_in_one_line_and_names_that_differ_differ(text):
    shown = visible(text)
    assert not any(c in STEERING or c == "\n" for c in shown)
    assert visible(shown) == shown
    assert shown == text or not text.isprintable()
    assert len(shown.splitlines()) <= 1


def test_letters_of_all_scripts_stay_and_nothing_invisible_does():
    assert visible("Schicht ä 層 слой 🧠 e\u0301") == "Schicht ä 層 слой 🧠 e\u0301"
    for hidden in ("\u200b", "\u00ad", "\u2060", "\ud800", "\U000e0041"):
        assert visible(f"a{hidden}").startswith("a\\")


@pytest.fixture(scope="module")
def acts(tmp_path_factory) -> Path:
    """A file whose layers, classes and provenance bear hostile names."""
    path, examples = tmp_path_factory.mktemp("names") / "acts.h5", grouped_examples()
    names = [HOSTILE, "=1+1"]
    layers = [stored(name, order, (6,)) for order, name in enumerate(names)]
    classes = [HOSTILE, *("@SUM(A1)", "-2")[: examples["true_label"].max()]]
    provenance = {"model": HOSTILE, "checkpoint": HOSTILE, "dataset": {"name": HOSTILE}}
    with create_activations(path, examples, classes, layers, provenance) as writer:
        rng = np.random.default_rng(0)
        writer.append({name: rng.standard_normal((len(examples), 6), dtype=np.float32) for name in names})
    return path


def test_a_terminal_is_not_steered_by_what_a_file_holds(acts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_shown(done("info", acts))
    check_shown(done("info", acts, "--verify"))
    said = json.loads(done("info", acts, "--json"))
    assert HOSTILE in said["layers"]
    code, out, err = run("capacity", acts, "--draws", 10, "--out", "q.csv")
    assert code == 0, err
    check_shown(out)
    _, _, err = run("capacity", acts, "--layers", HOSTILE.replace("[", "?"), "--kinds", "unseen", "--out", "r.csv")
    assert not STEERING & set(err)
    assert err.count("\n") == 1
    assert {HOSTILE, "=1+1"} == set(read_results("q.csv")["layer"])
    code, _, err = run("info", f"{HOSTILE}.h5")
    assert (code, err.count("\n"), STEERING & set(err)) == (3, 1, set())


def test_what_commands_print_within_others_is_visible_in_their_log(tmp_path):
    from manigeo.cli.steps import errors_to

    with errors_to(tmp_path / "log.txt"):
        import sys

        print(HOSTILE, file=sys.stderr)
    assert not (STEERING - {"\r"}) & set((tmp_path / "log.txt").read_text())


# -------------------------------------------------------------------------------------------------------- spreadsheets
NAMES = st.text(st.one_of(st.sampled_from("=+-@\t\r'\"\n, ;a1"), st.characters(codec="utf-8")), max_size=8)


@given(NAMES)
def test_a_cell_is_no_formula_and_gives_back_its_text(text):
    cell = as_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert as_named(cell) == text


@given(NAMES.filter(lambda text: not text.startswith("'")))
def test_a_cell_written_as_it_is_by_another_program_is_read_as_it_is(text):
    assert as_named(text) == text


@given(names=st.lists(NAMES, min_size=1, max_size=4))
@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_tables_give_back_their_names_and_numbers(ending, names, tmp_path_factory):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("table") / f"t{ending}"
    rows = [{"layer": name, "manifold": name, "metric": "capacity", "value": -0.5, "depth": -1} for name in names]
    write_results(as_table(rows), path)
    table = read_results(path)
    assert table["layer"].tolist() == table["manifold"].tolist() == names
    assert table["value"].tolist() == [-0.5] * len(names)


def test_a_table_on_the_disk_holds_no_formula_and_plain_numbers(tmp_path):
    path = tmp_path / "t.csv"
    write_results(as_table([{"layer": "=cmd|' /C calc'!A0", "metric": "capacity", "value": -0.5}]), path)
    with open(path, newline="") as file:
        header, cells = csv.reader(file)
    found = dict(zip(header, cells, strict=True))
    assert found["layer"] == "'=cmd|' /C calc'!A0"
    assert found["value"] == "-0.5"


def test_an_old_table_with_formulas_is_read_as_it_is(tmp_path):
    as_table([{"layer": "=1+1", "metric": "capacity", "value": 1.0}]).to_csv(tmp_path / "old.csv", index=False)
    assert read_results(tmp_path / "old.csv")["layer"].tolist() == ["=1+1"]


def test_headings_are_cells_too():
    table = pd.DataFrame({"=1": ["+2", None], "n": [-1, 2]})
    cells = as_cells(table)
    assert list(cells.columns) == ["'=1", "n"]
    assert cells["'=1"].iloc[0] == "'+2"
    pd.testing.assert_frame_equal(as_names(cells), table)


def test_a_message_that_quotes_a_cell_of_any_length_keeps_its_ends():
    told = str(InputError(f"labels.csv: expected True or False, got {'x' * 10_000}; write one"))
    assert re.fullmatch(r"labels\.csv: expected True or False, got x+ \.\.\. x+; write one", told)
    assert len(told) < 2100
    assert str(InputError("a" * 2000)) == "a" * 2000
