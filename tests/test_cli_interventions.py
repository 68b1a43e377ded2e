"""``manigeo rewind`` and ``manigeo reinit`` as a user types them."""

import hashlib
import json
import math

import pandas as pd
import pytest

from manigeo.errors import InputError
from manigeo.plots import figures_of, plot_criticality, plot_final_reset, plot_reinit, plot_rewind, plot_utilisation
from manigeo.results import read_results, with_settings
from manigeo.runs import RunFolder
from tests.command_line import done, run
from tests.effects import assert_effect
from tests.trained import planted_run

pytestmark = [pytest.mark.training, pytest.mark.installed]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "planted"
    planted_run(folder)
    return folder


def chosen(table):
    """The layers set back that give the highest validation accuracy; of equals the fewest."""
    validation = with_settings(table, "sweep").query("metric == 'accuracy' and kind == 'validation'")
    among = validation[validation["sweep"].isin(["none", "last"])].set_index("layer")
    trained, best = among.loc["(none)"], among.loc[among["value"].idxmax()]
    error = math.hypot(trained["stderr"], best["stderr"])
    assert_effect("validation accuracy regained", best["value"] - trained["value"], error)
    return best.name


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "checkpoints").iterdir()}


def test_rewind_prints_the_sweeps_and_writes_what_it_prints(planted, tmp_path):
    files, out = digests(planted), tmp_path / "r.csv"
    text = done("rewind", planted, "--checkpoints", "1", "--out", out)
    assert digests(planted) == files
    assert "planted/last (epoch 2): 4 layers, set to epoch-0001 (epoch 1)" in text
    assert "the last k layers to epoch-0001 (epoch 1)" in text
    table = read_results(out)
    assert f"chosen on validation data: {chosen(table)} to epoch-0001" in text
    assert figures_of(table) == ["rewind"]
    assert set(table["run"]) == {"planted"}
    assert set(table["checkpoint"]) == {"last"}
    settings = with_settings(table, "sweep", "group_by", "to_epoch")
    assert set(settings["sweep"]) == {"none", "whole", "last", "each", "prefix", "noise"}
    figure = plot_rewind(table)
    assert [ax.get_title() for ax in figure.axes] == [
        f"{what} to epoch-0001 (epoch 1)"
        for what in ("last $k$ layers rewound", "one layer rewound", "first $k$ layers rewound")
    ]
    last = table[(table["metric"] == "accuracy") & (table["kind"] == "permuted")]
    drawn = next(line for line in figure.axes[0].get_lines() if line.get_label() == "permuted").get_ydata()
    expected = [
        last.set_index("layer").loc[name, "value"] for name in ("(none)", *(f"(last {k})" for k in range(1, 5)))
    ]
    assert list(drawn) == expected


def test_train_keeps_a_limit_of_what_is_before_and_rewind_goes_by_it_or_another(tmp_path):
    words = (
        "--data",
        "digits",
        "--data-arg",
        "per_class=8",
        "--arch-arg",
        "depth=1",
        "--arch-arg",
        "width=8",
        "--permute",
        0.5,
    )
    done(
        "train", *words, "--epochs", 2, "--checkpoint-epochs", "all", "--near-guessing", 0.5, "--out", tmp_path / "run"
    )
    folder = RunFolder(tmp_path / "run")
    assert folder.near_guessing == 0.5
    curve = [(0.1, 0.1), (0.12, 0.5), (0.5, 0.6)]
    rows = [
        (e, kind, a) for e, both in enumerate(curve) for kind, a in zip(("permuted", "validation"), both, strict=True)
    ]
    pd.DataFrame(rows, columns=["epoch", "kind", "accuracy"]).assign(n=900).to_csv(folder.metrics_path, index=False)
    assert "set to before (epoch 2)" in done("rewind", folder.path, "--dry-run")
    assert "set to before (epoch 1)" in done("rewind", folder.path, "--dry-run", "--near-guessing", 0.08)


def test_a_set_of_layers_and_one_sweep_can_be_chosen(planted, tmp_path):
    out = tmp_path / "r.csv"
    done("rewind", planted, "--set", "h3.linear,logits", "--each", "--layers", "h1.linear", "--out", out)
    layers = set(read_results(out)["layer"])
    assert layers == {"(none)", "(all)", "h1.linear", "h3.linear+logits"}
    code, _, err = run("rewind", planted, "--retrain", 5, "--retrain-lr", 0, "--out", out)
    assert (code, "--retrain-lr" in err) == (2, True)


def test_evidence_of_layers_is_made_both_ways_with_its_controls_and_goes_on(planted, tmp_path):
    out, whole = tmp_path / "r.csv", tmp_path / "whole.csv"
    sweeps = {"none", "whole", "each", "noise", "pair", "retrain"}
    words = ("rewind", planted, "--each", "--checkpoints", "1")
    asked = ("--noise-draws", 2, "--pairs", "--retrain", 5)
    plan = done(*words, *asked, "--dry-run", "--out", out)
    for sweep in ("each layer: 4", "noise: 8", "pairs of layers: 6", "retrained: 8", "in the earlier network: 4"):
        assert sweep in plan
    assert not out.exists()
    text = done(*words, *asked, "--out", whole)
    assert "permuted accuracy, each layer alone, and epoch-0001 (epoch 1)" in text
    assert "permuted accuracy lost with pairs of layers to epoch-0001 (epoch 1)" in text
    table = read_results(whole)
    done(*words, "--noise-draws", 0, "--one-way", "--out", out)
    assert set(with_settings(read_results(out), "sweep")["sweep"]) == {"none", "whole", "each"}
    done(*words, *asked, "--out", out, "--resume", "--jobs", 2)
    assert set(with_settings(read_results(out), "sweep")["sweep"]) == sweeps
    by = ["layer", "settings", "kind", "metric"]
    pd.testing.assert_frame_equal(
        read_results(out).sort_values(by, ignore_index=True), table.sort_values(by, ignore_index=True)
    )


def test_reinit_labels_layers_and_draws_a_heat_map_a_kind(planted, tmp_path):
    out = tmp_path / "r.csv"
    text = done("reinit", planted, "--draws", 2, "--cumulative", "--out", out)
    assert "re-initialised together" in text
    assert "critical" in text
    table = read_results(out)
    assert figures_of(table) == ["reinit"]
    figure = plot_reinit(table)
    assert [ax.get_title() for ax in figure.axes[:4]] == ["unpermuted", "permuted", "restored", "test"]
    labels = [tick.get_text() for tick in figure.axes[2].get_xticklabels()]
    assert labels == ["fresh draw", "zero", "epoch 0", "epoch 1", "trained"]
    heat = figure.axes[1].collections[0].get_array().reshape(4, 5)
    trained = table[(table["layer"] == "(none)") & (table["metric"] == "accuracy") & (table["kind"] == "permuted")]
    assert (heat[:, -1] == trained["value"].iloc[0]).all()


def test_an_interrupted_table_goes_on(planted, tmp_path, monkeypatch):
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    words = ("reinit", planted, "--draws", 2, "--checkpoints", "init")
    done(*words, "--out", whole)
    from manigeo_extract.interventions import exchanges as interventions

    count, compared = [0], interventions.Examiner.compared

    def stops(self, *args):
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return compared(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(interventions.Examiner, "compared", stops)
        part.write_text("another table")
        code, _, err = run(*words, "--out", part, "--force")
    assert (code, "the same command with --resume in place of --force goes on" in err) == (130, True)
    assert 0 < len(read_results(part)) < len(read_results(whole))
    done(*words, "--out", part, "--resume")
    pd.testing.assert_frame_equal(read_results(part), read_results(whole))


OTHER_SETTINGS = {
    "seed": ("--seed", 5),
    "batch_norm": ("--batch-norm", "params"),
    "examples": ("--examples", 10),
    "group_by": ("--group-by", "kernel"),
    "threshold": ("--threshold", 0.2),
    "n_draws": ("--draws", 3),
    "criticality_examples": ("--criticality", "--criticality-examples", 30),
}


def test_a_table_of_other_settings_is_refused_with_what_differs_and_left_as_it_is(planted, tmp_path):
    out = tmp_path / "r.csv"
    words = ("reinit", planted, "--draws", 2, "--checkpoints", "init", "--layers", "logits", "--out", out)
    done(*words, "--criticality", "--criticality-examples", 20)
    before = out.read_bytes()
    for name, option in OTHER_SETTINGS.items():
        code, _, err = run(*words, "--criticality", "--criticality-examples", 20, *option, "--resume")
        assert code == 2, name
        (line,) = [line for line in err.splitlines() if line.startswith("manigeo:")]
        assert f"({name} " in line
        assert "give the same settings, another --out, or --force" in line
    code, _, err = run(*words, "--resume")
    assert (code, "also holds 'criticality', which this command does not compute" in err) == (2, True)
    code, _, err = run("rewind", planted, "--out", out, "--resume")
    assert (code, "which this command does not compute" in err) == (2, True)
    assert out.read_bytes() == before


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_truncated_table_is_completed_without_a_row_twice(planted, tmp_path, share):
    out = tmp_path / "r.csv"
    words = ("reinit", planted, "--draws", 2, "--checkpoints", "init", "--layers", "logits", "--out", out,
             "--criticality", "--criticality-examples", 20, "--utilisation")  # fmt: skip
    done(*words)
    whole, lines = read_results(out), out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[: max(2, int(share * len(lines)))]))
    done(*words, "--resume")
    pd.testing.assert_frame_equal(read_results(out), whole)


def test_studies_are_added_on_request_each_with_its_figure(planted, tmp_path):
    out = tmp_path / "r.csv"
    words = ("reinit", planted, "--draws", 0, "--no-zero", "--checkpoints", "init", "--out", out)
    more = ("--final-reset", 2, "--reset-to", "1,fresh", "--retrain-steps", 8, "--utilisation", "--criticality",
            "--criticality-examples", 40)  # fmt: skip
    text = done(*words, *more)
    for title in (
        "last k layers reset, and trained again",
        "accuracy of a linear probe on the layers up to",
        "module criticality",
    ):
        assert title in text
    table = read_results(out)
    (picked,) = (
        with_settings(table, "to", "steps", "chosen")
        .query("metric == 'accuracy' and kind == 'validation' and chosen == True")
        .to_dict("records")
    )
    assert f"chosen on validation data: {picked['layer']} to {picked['to']}, {picked['steps']} steps" in text
    assert figures_of(table) == ["reinit", "final-reset", "utilisation", "criticality"]
    figure = plot_final_reset(table)
    assert [ax.get_title() for ax in figure.axes] == [
        "last $k$ layers set to epoch-0001",
        "last $k$ layers set to fresh draw",
    ]
    accuracy = with_settings(table, "to", "steps").query("metric == 'accuracy' and kind == 'permuted' and steps == 0")
    drawn = next(line for line in figure.axes[0].get_lines() if line.get_label() == "permuted").get_ydata()
    assert list(drawn[1:]) == list(accuracy[accuracy["to"] == "epoch-0001"].sort_values("depth")["value"])
    prefix = table[(table["metric"] == "prefix_accuracy") & (table["kind"] == "test")].sort_values("depth")["value"]
    drawn = next(line for line in plot_utilisation(table).axes[0].get_lines() if line.get_label() == "test").get_ydata()
    assert list(drawn) == list(prefix)
    (ax,) = plot_criticality(table).axes
    assert len(ax.get_lines()[0].get_xdata()) == 4
    assert done(*words, *more, "--resume").count("module criticality") == 1
    pd.testing.assert_frame_equal(read_results(out), table)


def test_tables_without_studies_are_not_drawn(planted, tmp_path):
    out = tmp_path / "r.csv"
    done("rewind", planted, "--each", "--out", out)
    for draw in (plot_final_reset, plot_utilisation, plot_criticality, plot_reinit):
        with pytest.raises(InputError, match=r"nothing to plot: the table holds no .*manigeo reinit"):
            draw(read_results(out))


def test_json_and_a_dry_run(planted, tmp_path):
    out = tmp_path / "r.json"
    code, text, err = run("rewind", planted, "--last-k", "--json", "--out", out)
    assert code == 0
    assert {row["metric"] for row in json.loads(text)} >= {"accuracy", "regained", "selected"}
    assert "4 layers" in err
    assert "networks on" in done("reinit", planted, "--dry-run", "--out", tmp_path / "never.csv")
    assert not (tmp_path / "never.csv").exists()


def test_other_mistakes_are_one_line(planted, tmp_path):
    def complaint(*words):
        code, _, err = run(*words, "--out", tmp_path / "x.csv")
        assert code in (2, 3)
        (line,) = [line for line in err.splitlines() if line.startswith("manigeo:")]
        return line

    assert "did you mean 'h3.linear'" in complaint("rewind", planted, "--layers", "h3.linea")
    assert "has no checkpoint '7'" in complaint("rewind", planted, "--checkpoints", "7")
    assert "holds no checkpoints" in complaint("rewind", tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    last = planted / "checkpoints" / "last.pt"
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(last.read_bytes())
    assert "has no checkpoint of epoch 0" in complaint("reinit", tmp_path / "run")
