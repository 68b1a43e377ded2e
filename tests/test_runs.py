"""Runs: what a number belongs to is known by content, never by the name of a folder or file."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from manigeo import read_results, write_results
from manigeo.errors import InputError
from manigeo.report import collect_sources
from manigeo.results import as_table, bare_settings, identities
from manigeo.runs import RunFolder, distinct_names, find_tables, run_of, run_tables, set_aside, tables_beside
from manigeo_extract import Recorder, load_checkpoint
from manigeo_extract.training.runs import place_of, run_snapshots
from tests.command_line import run as command

LAYERS = ("h1", "logits")


def trained(folder: Path, seed: int = 0, **options) -> RunFolder:
    """A run of two epochs, as a loop of one's own records it."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(2, 2)
    recorder = Recorder(folder, epochs="all", **options)
    for epoch in range(3):
        scores = {kind: {"accuracy": epoch / 2, "loss": 1.0, "n": 9} for kind in ("unpermuted", "permuted", "test")}
        recorder.step(model, epoch, scores)
        torch.nn.init.normal_(model.weight)
    return recorder.folder


def rows_about(run: RunFolder, checkpoint: str = "last", *, activations: bool = True, **columns) -> pd.DataFrame:
    """Capacities of a checkpoint; of its activations, whose rows name the checkpoint in their settings."""
    place = place_of(load_checkpoint(run.checkpoint(checkpoint)))
    if activations:
        place |= {"checkpoint_sha256": place["fingerprint"], "fingerprint": f"activations of {place['fingerprint']}"}
    row = place | {"kind": "permuted", "metric": "capacity", "value": 0.2, "settings": '{"analysis": "mean_field"}'}
    return as_table([row | {"layer": layer, "depth": depth} | columns for depth, layer in enumerate(LAYERS)])


def test_a_run_has_an_identity_which_its_checkpoints_carry(tmp_path):
    run = trained(tmp_path / "run")
    assert len(run.identity) == 16
    assert {load_checkpoint(run.checkpoint(name)).run_id for name in run.checkpoint_names()} == {run.identity}
    assert trained(tmp_path / "other").identity != run.identity


def test_a_run_that_goes_on_keeps_its_identity(tmp_path):
    run = trained(tmp_path / "run")
    resumed = Recorder(tmp_path / "run", resume=True)
    resumed.step(torch.nn.Linear(2, 2), 3)
    assert load_checkpoint(run.checkpoint("last")).run_id == run.identity == RunFolder(tmp_path / "run").identity


def test_the_name_of_a_run_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    run = trained(tmp_path / "run")
    for place in (tmp_path, run.path, run.checkpoints):
        monkeypatch.chdir(place)
        path = Path(run.checkpoint("last").relative_to(place) if place != run.checkpoints else "last.pt")
        assert run_of(path).name == place_of(load_checkpoint(path))["run"] == "run"


@pytest.mark.parametrize("place", ["run", "run/analysis", "."])
@pytest.mark.parametrize("activations", [True, False])
def test_tables_of_an_earlier_training_in_the_folder_are_left_out(tmp_path, place, activations):
    old = rows_about(trained(tmp_path / "run"), activations=activations)
    run = trained(tmp_path / "run", seed=1, overwrite=True)
    (tmp_path / place).mkdir(exist_ok=True)
    write_results(old, tmp_path / place / "old.csv")
    with pytest.raises(InputError, match=r"old\.csv: of another training than .*run .*manigeo analyze"):
        run_tables(run.path)
    write_results(rows_about(run, value=0.3), tmp_path / place / "new.csv")
    found = run_tables(run.path)
    assert set(found.table["value"]) == {0.3}
    assert list(found.left_out) == [tmp_path / place / "old.csv"]
    assert any("old.csv: of another training" in note for note in collect_sources([run.path]).left_out)


def test_rows_of_two_trainings_in_one_table_are_told_apart(tmp_path):
    old = rows_about(trained(tmp_path / "run"))
    run = trained(tmp_path / "run", seed=1, overwrite=True)
    write_results(pd.concat([old, rows_about(run, value=0.3)]), tmp_path / "run" / "both.csv")
    found = run_tables(run.path)
    assert set(found.table["value"]) == {0.3}
    assert found.left_out[tmp_path / "run" / "both.csv"].startswith("2 of 4 rows: of another training")


def test_rows_of_a_checkpoint_that_was_written_again_are_left_out(tmp_path):
    run = trained(tmp_path / "run")
    write_results(rows_about(run), run.path / "last.csv")
    write_results(rows_about(run, "epoch-0001"), run.path / "first.csv")
    Recorder(run.path, resume=True).step(torch.nn.Linear(2, 2), 3)
    found = run_tables(run.path)
    assert set(found.table["checkpoint"]) == {"epoch-0001"}
    assert "of an earlier last.pt" in found.left_out[run.path / "last.csv"]


def test_rows_of_a_checkpoint_that_was_deleted_stay(tmp_path):
    run = trained(tmp_path / "run")
    write_results(rows_about(run, "epoch-0001"), run.path / "first.csv")
    run.checkpoint("epoch-0001").unlink()
    assert len(run_tables(run.path).table) == 2


def test_a_run_that_was_renamed_keeps_its_tables(tmp_path):
    run = trained(tmp_path / "run")
    write_results(rows_about(run), tmp_path / "beside.csv")
    run.path.rename(tmp_path / "better-name")
    assert run_tables(tmp_path / "better-name").table["run"].tolist() == ["better-name"] * 2


def test_two_runs_of_one_name_stay_two(tmp_path):
    runs = [trained(tmp_path / place / "run", seed) for seed, place in enumerate("ab")]
    for run, value in zip(runs, (0.2, 0.3), strict=True):
        write_results(rows_about(run, value=value), run.path / "t.csv")
    joined = read_results([run.path / "t.csv" for run in runs])
    assert {value: set(rows["run"]) for value, rows in joined.groupby("value")} == {
        0.2: {f"run@{runs[0].identity[:6]}"},
        0.3: {f"run@{runs[1].identity[:6]}"},
    }
    assert find_tables([run.path for run in runs]).table["run"].nunique() == 2


def test_tables_without_identity_are_taken_by_checkpoint_or_left_out(tmp_path):
    run = trained(tmp_path / "run")
    rows = rows_about(run, activations=False)
    anonymous = rows.assign(settings=rows["settings"].map(bare_settings))
    write_results(anonymous, run.path / "known.csv")
    write_results(anonymous.assign(fingerprint="of something else"), run.path / "unknown.csv")
    found = run_tables(run.path)
    assert [table.path.name for table in found.tables] == ["known.csv"]
    assert "without the identity of a training" in found.left_out[run.path / "unknown.csv"]


def test_a_run_without_identity_is_known_by_its_name(tmp_path):
    run = trained(tmp_path / "run")
    description = json.loads(run.description_path.read_text())
    run.description_path.write_text(json.dumps(description | {"run_id": None}))
    rows = rows_about(run).assign(settings="{}")
    write_results(rows, tmp_path / "beside.csv")
    assert len(run_tables(run.path).table) == 2
    write_results(rows.assign(run="another"), tmp_path / "beside.csv", force=True)
    with pytest.raises(InputError, match="has no results"):
        run_tables(run.path)


def test_rows_that_do_not_name_their_run_follow_those_of_their_activations(tmp_path):
    rows = rows_about(trained(tmp_path / "run"))
    best = rows.head(1).assign(settings='{"analysis": "best_layer"}')
    assert identities(pd.concat([best, rows], ignore_index=True))["run_id"].nunique() == 1


def damaged(text: str, change) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:2], change(lines[2]), *lines[3:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.replace("0.2,", "o.2,"), r"line 3: value is 'o\.2', expected a number"),
        (lambda line: line.replace('mean_field""', "mean_field"), "line 3: settings are no JSON"),
        (lambda line: line[: len(line) // 2] + "\n", r"line 3 has \d+ fields, expected 14"),
        (lambda line: line.replace("\n", ",more\n"), "line 3 has 15 fields, expected 14"),
    ],
)
def test_a_damaged_table_is_an_error_with_its_line(tmp_path, change, message):
    run = trained(tmp_path / "run")
    path = run.path / "t.csv"
    write_results(rows_about(run), path)
    path.write_text(damaged(path.read_text(), change))
    with pytest.raises(InputError, match=message):
        read_results(path)
    with pytest.raises(InputError, match=message):
        run_tables(run.path)
    code, _, said = command("localize", run.path, "--out", tmp_path / "l.csv")
    assert code == 3
    assert "t.csv" in said
    assert "line 3" in said


def test_a_copy_of_a_run_is_left_out(tmp_path):
    run = trained(tmp_path / "run")
    write_results(rows_about(run), run.path / "t.csv")
    shutil.copytree(run.path, tmp_path / "a copy")
    write_results(rows_about(run).assign(value=7.0), tmp_path / "a copy" / "analysis.csv")
    for places in ([run.path, tmp_path / "a copy"], [run.path, tmp_path]):
        found = find_tables(places)
        assert found.left_out == {tmp_path / "a copy": f"a copy of {run.path}"}
        assert [table.path for table in found.tables] == [run.path / "t.csv"]


def test_a_record_cut_short_is_an_error_with_its_number(tmp_path):
    write_results(rows_about(trained(tmp_path / "run")), tmp_path / "t.json")
    records = json.loads((tmp_path / "t.json").read_text())
    del records[1]["value"]
    (tmp_path / "t.json").write_text(json.dumps(records))
    with pytest.raises(InputError, match="record 2 has no value"):
        read_results(tmp_path / "t.json")


def test_a_literal_file_name_wins_over_a_glob(tmp_path):
    table = rows_about(trained(tmp_path / "run"))
    write_results(table, tmp_path / "acts1.csv")
    write_results(table.assign(value=7.0), tmp_path / "acts[1].csv")
    assert set(read_results(tmp_path / "acts[1].csv")["value"]) == {7.0}
    assert set(read_results(tmp_path / "acts?.csv")["value"]) == {0.2}


def test_results_of_a_training_that_is_replaced_are_set_aside(tmp_path):
    run = trained(tmp_path / "run")
    before = run.identity
    run.analysis.mkdir()
    for path in (run.analysis / "a.csv", run.path / "b.csv", tmp_path / "c.csv"):
        write_results(rows_about(run), path)
    assert tables_beside(run) == [tmp_path / "c.csv"]
    moved, place = set_aside(run)
    assert [path.name for path in moved] == ["analysis", "b.csv"]
    assert place == run.path / f"earlier-{before[:6]}"
    assert (place / "analysis" / "a.csv").exists()
    assert run.metrics_path.exists()
    assert set_aside(run)[0] == []


def test_runs_are_named_by_the_shortest_ends_that_tell_them_apart():
    assert distinct_names(["x/a/run", "x/b/run"]) == ["a/run", "b/run"]
    assert distinct_names(["x/a"]) == ["a"]


def test_a_checkpoint_of_another_training_in_the_folder_is_refused(tmp_path):
    run, other = trained(tmp_path / "run"), trained(tmp_path / "other")
    other.checkpoint("last").rename(run.checkpoint("last"))
    with pytest.raises(InputError, match=r"last\.pt is of another training"):
        run_snapshots(run.path)


def test_tables_of_other_programs_beside_a_run_are_passed_over(tmp_path):
    run = trained(tmp_path / "run")
    write_results(rows_about(run), run.path / "t.csv")
    (tmp_path / "scores.csv").write_text("metric,value\naccuracy,high\n")
    (tmp_path / "scores.json").write_text('[{"metric": "accuracy", "value": "high"}]')
    found = run_tables(run.path)
    assert (len(found.table), dict(found.left_out)) == (2, {})
