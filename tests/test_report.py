"""The report: what it takes in, that it changes no number on the way, and that nothing from a file becomes markup."""

import gzip
import itertools
import json
import re
import shutil
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manigeo.errors import InputError
from manigeo.kinds import KINDS
from manigeo.per_example.table import example_rows, write_examples
from manigeo.plots.geometry import PANELS
from manigeo.plots.movement import WEIGHT_PANELS
from manigeo.report import collect_sources, render_page
from manigeo.report.caveats import caveats
from manigeo.report.colors import LEAST_CONTRAST, PAPER, contrast, luminance, on_dark
from manigeo.report.downloads import embed_tables
from manigeo.report.figures import draw_pictures
from manigeo.report.gate import read_gate
from manigeo.report.sources import DescribedRun, ResultsFile
from manigeo.report.tables import MOST_ROWS, metric_tables
from manigeo.results import as_table, read_results, write_results
from manigeo.runs import RunFolder
from manigeo.text.cells import measured
from manigeo.vocabulary import flag_words
from tests.command_line import done, run
from tests.test_imports import modules_after

NASTY = "</script><script>alert(1)</script>\"><img src=x onerror='alert(1)'>&amp;{{ 7*7 }},=1+1"
SAMPLE = '{"analysis": "mean_field", "per_class": 20, "n_classes": 9, "centers": "auto"}'


def geometry(run="run", checkpoints=(("best", 6), ("last", 40)), layers=3, **columns) -> pd.DataFrame:
    """Every aggregate another number; and a manifold."""
    rows = [
        {
            "run": run, "checkpoint": checkpoint, "epoch": epoch, "layer": f"h{depth}", "depth": depth, "kind": kind,
            "manifold": manifold, "metric": metric, "stderr": 0.01, "n": 9, "settings": SAMPLE, "fingerprint": checkpoint,
        }
        for checkpoint, epoch in checkpoints for depth in range(layers) for kind in KINDS for metric in PANELS
        for manifold in ("", "cat")
    ]  # fmt: skip
    return as_table([row | {"value": 0.1 + i / 1000} | columns for i, row in enumerate(rows)])


def small(**columns) -> pd.DataFrame:
    return geometry(checkpoints=(("last", 40),), layers=1, **columns)


def movement() -> pd.DataFrame:
    return as_table(
        [
            {"run": "run", "checkpoint": f"epoch-{epoch}", "epoch": epoch, "layer": f"h{depth}", "depth": depth,
             "metric": metric, "value": epoch * (depth + 1) / 7 + place, "settings": '{"analysis": "weights"}'}
            for epoch in range(3) for depth in range(3) for place, metric in enumerate(WEIGHT_PANELS)
        ]
    )  # fmt: skip


def folder_of_run(at: Path, permuted=(0.02, 0.9, 0.99), name="run", **tables) -> Path:
    """A run's folder as a trainer leaves it, and tables beside it."""
    folder = at / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"arch": "mlp", "data": "glyphs", "permutation": {"fraction": 0.5}}))
    rows = [(epoch, "permuted", value) for epoch, value in zip((0, 6, 40), permuted, strict=True)]
    rows += [(epoch, "test", 0.5) for epoch in (0, 6, 40)]
    pd.DataFrame(rows, columns=["epoch", "kind", "accuracy"]).to_csv(folder / "metrics.csv", index=False)
    for stem, table in tables.items():
        write_results(table, at / f"{stem}.csv")
    return folder


def page_of(*places: Path, title="") -> str:
    return render_page(collect_sources(places), title)


class Elements(HTMLParser):
    """Elements with their attributes, and the text of the page without scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


# -------------------------------------------------------------------------------------------------------- what is taken
def test_a_run_comes_with_the_tables_in_it_and_beside_it_that_bear_its_name(tmp_path):
    folder = folder_of_run(tmp_path, capacity=geometry(), other=geometry(run="other"))
    write_results(movement(), folder / "weights.csv")
    (folder / "analysis").mkdir()
    write_results(geometry(), folder / "analysis" / "joint.csv")
    (folder / "labels.csv").write_text("index,train_label\n0,1\n")
    names = [file.name for file in collect_sources([folder]).tables]
    assert sorted(names) == ["capacity.csv", "run/analysis/joint.csv", "run/weights.csv"]


def test_a_folder_of_several_runs_comes_with_all_of_them(tmp_path):
    folder_of_run(tmp_path, name="a", one=geometry(run="a"))
    folder_of_run(tmp_path, name="b", two=geometry(run="b"))
    sources = collect_sources([tmp_path])
    assert [run.name for run in sources.runs] == ["a", "b"]
    assert [file.name for file in sources.tables] == ["one.csv", "two.csv"]


def test_a_table_comes_with_the_runs_that_it_names(tmp_path):
    folder_of_run(tmp_path, capacity=geometry())
    assert [run.name for run in collect_sources([tmp_path / "capacity.csv"]).runs] == ["run"]


def test_a_file_given_twice_is_one(tmp_path):
    folder = folder_of_run(tmp_path, capacity=geometry())
    assert len(collect_sources([folder, tmp_path, tmp_path / "capacity.csv"]).tables) == 1


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_damaged_table_is_left_out_with_the_reason(tmp_path, suffix):
    folder_of_run(tmp_path, capacity=geometry())
    write_results(geometry(), tmp_path / f"half{suffix}")
    text = (tmp_path / f"half{suffix}").read_text()
    (tmp_path / f"half{suffix}").write_text(text[:400].replace("value", "worth") + "\n")
    if suffix == ".csv":
        (tmp_path / "half.csv").write_text(text[:400].replace("layer", "lair") + "\n")
    sources = collect_sources([tmp_path])
    assert len(sources.tables) == 1
    assert len(sources.left_out) == 1
    assert sources.left_out[0].startswith(f"half{suffix}: ")
    assert sources.left_out[0] in Elements(render_page(sources)).text


def test_nothing_to_report_on_says_which_commands_make_tables(tmp_path):
    with pytest.raises(InputError, match=r"no results tables in or beside .* make them with manigeo capacity"):
        collect_sources([tmp_path])
    with pytest.raises(InputError, match="does not exist; expected the folder of a run"):
        collect_sources([tmp_path / "none"])
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(InputError, match="is not a results table"):
        collect_sources([tmp_path / "a.csv"])


# ------------------------------------------------------------------------------------------- no number changes on the way
def test_every_aggregate_stands_in_one_cell_and_no_manifold_does():
    table = geometry()
    aggregates = table[table["manifold"] == ""]
    cells = [
        float(cell.sort)
        for analysis in metric_tables(aggregates) for shown in analysis.tables for row in shown.rows
        for cell in row[shown.n_names :] if cell.sort
    ]  # fmt: skip
    assert Counter(cells) == Counter(aggregates["value"])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["k1", "k2"]), st.integers(0, 2), st.integers(0, 2)),
                unique=True, min_size=1))  # fmt: skip
def test_no_row_is_lost_whatever_tells_rows_apart(places):
    table = as_table(
        [
            {"layer": layer, "kind": kind, "metric": "m", "value": i, "settings": json.dumps({"analysis": "x", "k": k}),
             "fingerprint": str(print)}
            for i, (layer, kind, k, print) in enumerate(places)
        ]
    )  # fmt: skip
    (analysis,) = metric_tables(table)
    (shown,) = analysis.tables
    values = [float(cell.sort) for row in shown.rows for cell in row[shown.n_names :] if cell.sort]
    assert sorted(values) == list(range(len(places)))


def test_the_ends_of_an_interval_stand_beside_their_value():
    rows = [
        {"layer": "h", "metric": f"js{end}", "value": v} for end, v in (("", 0.5), ("_ci_low", 0.4), ("_ci_high", 0.7))
    ]
    (analysis,) = metric_tables(as_table(rows))
    assert [cell.text + cell.error for cell in analysis.tables[0].rows[0]] == ["h", "0.5[0.4, 0.7]"]


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 1.0))
def test_a_number_is_shown_to_the_second_digit_of_its_error(value, stderr):
    text, _ = measured(value, stderr)
    # half a unit of the second digit is at most a twentieth of the error; of four digits alone, 5e-4 of the value
    assert abs(float(text) - value) <= max(0.05 * stderr, 0 if stderr < 9 else 5e-4 * value) * (1 + 1e-9)


@pytest.mark.parametrize("layer", ["h1", NASTY, "a\nb", 'say "x", then y', "ü \N{SNOWMAN}"])
def test_a_download_is_the_table_to_the_last_bit(tmp_path, layer):
    table = geometry(layer=layer)
    table["value"] = np.random.default_rng(0).standard_normal(len(table))
    (download,) = embed_tables([ResultsFile("t.csv", "", table)])
    (tmp_path / "t.csv").write_bytes(unpacked(download.address))
    pd.testing.assert_frame_equal(read_results(tmp_path / "t.csv"), table, check_exact=True)
    assert download.complete


def unpacked(address: str) -> bytes:
    return gzip.decompress(b64decode(address.removeprefix("data:application/gzip;base64,")))


def test_a_table_too_large_for_the_page_is_there_by_its_aggregates_then_by_its_name():
    file = ResultsFile("t.csv", "", geometry(layers=30))
    sizes = [len(download.address) for download in embed_tables([file])]
    aggregates = embed_tables([file], room=sizes[0] - 1)[0]
    assert (aggregates.complete, unpacked(aggregates.address).count(b"\n")) == (False, len(file.table) // 2 + 1)
    named = embed_tables([file], room=10)[0]
    assert (named.complete, named.address, named.rows) == (False, "", len(file.table))


def test_a_table_of_a_hundred_thousand_rows_is_a_page_that_loads(tmp_path):
    layers = [{"run": "run", "layer": f"layer.{i}", "depth": i, "kind": kind, "manifold": manifold, "metric": "probe",
               "value": i / 7, "settings": SAMPLE}
              for i in range(2500) for kind in KINDS for manifold in range(-1, 9)]  # fmt: skip
    table = as_table(layers)
    table["manifold"] = table["manifold"].replace("-1", "")
    write_results(table, tmp_path / "large.csv")
    page = page_of(tmp_path)
    assert len(page) < 3_000_000
    assert f"The first {MOST_ROWS} of 2500 rows" in page
    assert "100000 rows" in page


# ---------------------------------------------------------------------------------------------------------------- figures
def told(svg: str) -> list[str]:
    return [text.replace("&lt;", "<") for text in re.findall(r"<title>(.*?)</title>", svg, re.S)]


@pytest.mark.parametrize(("figure", "table"), [("geometry", geometry()), ("weights", movement())])
def test_every_point_of_a_figure_tells_layer_and_value_of_its_row(figure, table):
    (picture,) = draw_pictures([ResultsFile("t.csv", "", table)])
    drawn = table[(table["manifold"] == "") & table["metric"].isin([*PANELS, *WEIGHT_PANELS])]
    texts = told(picture.svg)
    assert picture.figure == figure
    for row in drawn.to_dict("records"):
        value = measured(row["value"], row["stderr"])[0]
        assert [text for text in texts if row["layer"] in text and row["kind"] in text and value in text], row
    assert len(texts) == len(drawn)


def test_cells_of_a_heat_map_tell_what_was_set_to_what():
    trained = json.dumps({"analysis": "reinit", "sweep": "none"})
    common = {"checkpoint": "last", "metric": "accuracy"}
    rows = [common | {"kind": kind, "layer": "(none)", "value": 1.0, "settings": trained} for kind in KINDS]
    cells = itertools.product(enumerate(KINDS), enumerate(("h1", "h2")), enumerate(("zero", "fresh draw")))
    told_of = {f"{layer} · {kind}\ntrained: 1" for kind in KINDS for layer in ("h1", "h2")}
    for (i, kind), (depth, layer), (j, to) in cells:
        settings = json.dumps({"analysis": "reinit", "sweep": "each", "to": to, "to_epoch": None})
        value = 0.1 * i + 0.01 * depth + 0.001 * j
        rows += [common | {"kind": kind, "layer": layer, "depth": depth, "value": value, "settings": settings}]
        rows += [rows[-1] | {"metric": "accuracy_drop", "value": 1.0}]
        told_of.add(f"{layer} · {kind}\n{to}: {value:.4g}")
    (picture,) = draw_pictures([ResultsFile("t.csv", "", as_table(rows))])
    assert set(told(picture.svg)) == told_of


def test_ids_are_of_one_figure_and_every_reference_has_its_target(tmp_path):
    folder = folder_of_run(tmp_path, capacity=geometry(), weights=movement())
    elements = Elements(page_of(folder))
    ids = Counter(attributes["id"] for _, attributes in elements.found if "id" in attributes)
    assert max(ids.values()) == 1
    wanted = {text for _, attributes in elements.found for text in re.findall(r"url\(#([^)]+)\)", str(attributes))}
    wanted |= {a["href"][1:] for _, a in elements.found if a.get("href", "").startswith("#")}
    wanted |= {a["aria-labelledby"] for _, a in elements.found if "aria-labelledby" in a}
    assert len(wanted) > 20
    assert wanted <= set(ids)


def test_tables_that_do_not_go_into_one_figure_are_drawn_one_by_one():
    other = geometry().assign(settings=SAMPLE.replace("20", "10"))
    files = [ResultsFile("a.csv", "", geometry()), ResultsFile("b.csv", "", other)]
    assert [(picture.of, bool(picture.svg)) for picture in draw_pictures(files)] == [("a.csv", True), ("b.csv", True)]


def test_a_figure_that_cannot_be_drawn_says_why(tmp_path):
    both = pd.concat([geometry(), geometry().assign(settings=SAMPLE.replace("20", "10"))])
    write_results(both, tmp_path / "t.csv")
    assert re.search(r"Not drawn: .*at different settings", page_of(tmp_path))


def test_a_large_drawing_becomes_an_image(monkeypatch):
    monkeypatch.setattr("manigeo.report.figures.LARGEST_SVG", 1000)
    (picture,) = draw_pictures([ResultsFile("t.csv", "", geometry())])
    assert picture.svg is None
    assert b64decode(picture.image.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


@pytest.mark.parametrize("layer", ["cost $x$ and $", r"$\frac$", "a\x01b"])
def test_a_layer_may_have_a_name_that_is_no_mathematics_or_no_xml(layer):
    (picture,) = draw_pictures([ResultsFile("t.csv", "", geometry(layer=layer, layers=1))])
    assert not picture.trouble
    if "$" in layer:
        assert all(layer in text for text in told(picture.svg))


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_on_dark_a_colour_can_be_seen_and_greys_are_turned_round(channels):
    color = "#{:02x}{:02x}{:02x}".format(*channels)
    if max(channels) - min(channels) >= 13:  # of 255: a twentieth
        assert contrast(on_dark(color), PAPER) >= LEAST_CONTRAST
    grey = "#" + 3 * f"{channels[0]:02x}"
    assert abs(luminance(on_dark(on_dark(grey))) - luminance(on_dark(grey))) <= 1
    assert luminance(on_dark("#000000")) >= luminance(on_dark(grey)) >= luminance(on_dark("#ffffff"))


# ------------------------------------------------------------------------------------------------------ the gate, the words
def gate_of(permuted):
    epochs = [0.0, 6.0, 40.0]
    metrics = pd.DataFrame({"epoch": epochs, "kind": "permuted", "accuracy": list(permuted)})
    return read_gate(DescribedRun("run", {}, metrics, RunFolder(Path("run"))), geometry())


def test_the_gate_is_that_of_training():
    from manigeo_extract.training.evaluation import MEMORIZATION_GATE

    assert gate_of((0.0, 0.5, MEMORIZATION_GATE)).passed
    assert not gate_of((0.0, 1.0, MEMORIZATION_GATE - 1e-9)).passed


def test_the_gate_shows_when_it_was_passed_and_the_kinds_at_the_epochs_of_tables():
    gate = gate_of((0.0, 0.95, 0.99))
    assert (gate.accuracy, gate.epoch, gate.first_passed) == (0.99, 40, 6)
    assert gate.at == ((6, "best", (0.95,)), (40, "last", (0.99,)))


def test_of_several_runs_the_page_says_how_many_have_memorized(tmp_path):
    for name, last in (("a", 0.99), ("b", 0.5), ("c", 0.96)):
        folder_of_run(tmp_path, permuted=(0, 0, last), name=name, **{name: small(run=name)})
    text = Elements(page_of(tmp_path)).text
    assert "2 of 3 runs have" in text
    assert "0.500" in text


def test_without_permuted_labels_there_is_nothing_to_memorize(tmp_path):
    others = small()
    folder = folder_of_run(tmp_path, capacity=others[others["kind"] != "permuted"])
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics[metrics["kind"] == "test"].to_csv(folder / "metrics.csv", index=False)
    assert "No labels were permuted" in page_of(folder)


def test_where_the_accuracy_was_not_recorded_the_tables_say_it_or_nobody_does(tmp_path):
    folder = folder_of_run(tmp_path, capacity=small())
    (folder / "metrics.csv").write_text("epoch,kind,accuracy,loss,n\n")
    assert "the accuracy on permuted labels was not recorded" in Elements(page_of(folder)).text
    scored = {"run": "run", "epoch": 40, "kind": "permuted", "metric": "accuracy", "value": 0.97, "layer": "(none)"}
    table = as_table([scored | {"settings": '{"analysis": "rewind", "sweep": "none"}'}])
    write_results(table, folder / "rewind.csv")
    assert "Training accuracy on permuted labels is 0.970 at epoch 40" in Elements(page_of(folder)).text


def test_a_run_that_has_not_memorized_and_one_that_nobody_knows_of_say_so(tmp_path):
    folder = folder_of_run(tmp_path, permuted=(0, 0.1, 0.2), capacity=small())
    assert "cannot say where it memorizes: read nothing below as memorization" in page_of(folder)
    shutil.rmtree(folder)
    assert "Unknown: no folder of a run" in Elements(page_of(tmp_path)).text


def test_without_localization_the_page_says_how_to_run_it(tmp_path):
    folder_of_run(tmp_path, capacity=small())
    text = Elements(page_of(tmp_path)).text
    assert text.index("Localization was not run") < text.index("Has it memorized?") < text.rindex("Figures\n")
    assert "manigeo localize RUN" in text


def test_the_answer_is_that_of_localize(tmp_path):
    from manigeo.localization.statement import describe_localization, localization_table

    rng = np.random.default_rng(0)
    rows = [
        {"run": "run", "checkpoint": checkpoint, "epoch": epoch, "layer": f"h{depth}", "depth": depth, "kind": "permuted",
         "manifold": f"c{i}", "metric": "capacity", "settings": SAMPLE, "fingerprint": checkpoint,
         "value": 0.1 + (0.02 * depth if checkpoint == "last" else 0) + 0.001 * rng.random()}
        for checkpoint, epoch in (("best", 6), ("last", 40)) for depth in range(5) for i in range(12)
    ]  # fmt: skip
    found = localization_table({"run": as_table(rows)}, {"run": 0.99}, n_resamples=100)
    write_results(found, tmp_path / "localize.csv")
    text = " ".join(Elements(page_of(tmp_path)).text.replace("\N{NO-BREAK SPACE}", " ").split())
    for line in describe_localization(found).splitlines():
        assert line.removeprefix("- ") in text
    two = [text.index(line) for line in describe_localization(found).splitlines()[2:4]]
    assert two[0] < two[1] < text.index("Every method on one axis") < text.index("The network has memorized")
    assert text.index("The network has memorized") < text.index("Has it memorized?") < text.rindex("Figures")


def test_correlations_of_methods_are_one_matrix_with_intervals():
    from manigeo.report.answer import read_answer

    known = {("a", "b"): (0.5, 0.25, 0.75), ("a", "c"): (-0.125, np.nan, np.nan)}
    rows = [
        {"metric": f"agreement{end}", "value": value,
         "settings": json.dumps({"analysis": "localize", "method": one, "other": other})}
        for (one, other), values in known.items() for end, value in zip(("", "_ci_low", "_ci_high"), values, strict=True)
    ]  # fmt: skip
    found = read_answer(as_table(rows)).correlations
    assert found.across == ("b", "c")
    assert found.rows == (("a", ("+0.50 [+0.25, +0.75]", "-0.12")),)


def test_caveats_name_the_floor_the_few_classes_and_what_does_not_compare():
    said = " ".join(caveats(geometry(), 1))
    assert "P = 9 classes, M = 20 examples" in said
    assert "M points without structure have a mean-field capacity of 0.0951" in said
    assert "9 classes are few for mean field" in said
    assert "one run with one seed" in said
    mixed = pd.concat([geometry(), geometry(run="b").assign(settings=SAMPLE.replace("20", "10"))])
    said = " ".join(caveats(mixed, 2))
    assert "Numbers of different P or M do not compare" in said
    assert "There are 2 runs" in said


@pytest.mark.parametrize(
    ("flag", "said"),
    [("saturated", "too narrow"), ("not_separable:alpha<0.3", "(alpha<0.3)"),
     ("fewer_than_3_folds:2", "fewer than 3 folds (2)"), ("brand_new", "brand_new")],
)  # fmt: skip
def test_flags_are_put_into_words(flag, said):
    assert said in flag_words(flag)


# ------------------------------------------------------------------------------------------------------------------ the page
@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return page_of(folder_of_run(tmp_path_factory.mktemp("page"), capacity=small(), weights=movement()))


def test_the_page_loads_nothing_from_anywhere(page):
    elements = Elements(page)
    addresses = [a[name] for _, a in elements.found for name in ("src", "href", "srcset", "action") if name in a]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    (policy,) = [a["content"] for a in elements.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_the_same_files_give_the_same_bytes_wherever_they_lie(tmp_path, page):
    folder = folder_of_run(tmp_path / "there/deeper", capacity=small(), weights=movement())
    assert page_of(folder) == page_of(folder) == page


def test_headings_go_down_one_step_at_a_time_and_tables_have_scopes(page):
    elements = Elements(page)
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert max(b - a for a, b in itertools.pairwise(levels)) == 1
    assert all(a.get("scope") in ("col", "row") for a in elements.of("th"))
    assert {tag for tag, _ in elements.found} >= {"header", "nav", "main", "footer"}


@pytest.mark.parametrize(
    "column", ["run", "checkpoint", "layer", "kind", "manifold", "metric", "flag", "settings", "fingerprint"]
)
def test_no_name_from_a_table_becomes_markup(tmp_path, clean, column):
    table = small()
    table[column] = json.dumps({"analysis": "mean_field", NASTY: NASTY}) if column == "settings" else NASTY
    nasty = page_of_table(tmp_path, table)
    check_nothing_new(clean, nasty)
    if column not in ("manifold", "fingerprint"):
        assert NASTY in nasty.text or NASTY.replace("_", " ") in nasty.text


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Elements:
    return page_of_table(tmp_path_factory.mktemp("clean"), small())


def page_of_table(folder: Path, table: pd.DataFrame) -> Elements:
    write_results(table, folder / "t.csv")
    return Elements(page_of(folder))


def check_nothing_new(clean: Elements, nasty: Elements) -> None:
    assert len(nasty.of("script")) == 1
    assert {tag for tag, _ in nasty.found} <= {tag for tag, _ in clean.found} | {
        "ol",
        "li",
        "sup",
        "dt",
        "dd",
        "dl",
        "code",
    }
    assert not nasty.of("img")
    assert not [name for _, attributes in nasty.found for name in attributes if name.startswith("on")]
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49,=1", nasty.text)


def test_no_name_from_a_run_a_title_or_a_file_becomes_markup(tmp_path):
    clean = Elements(page_of(folder_of_run(tmp_path / "clean", capacity=small())))
    name = NASTY.replace("/", "")
    folder = folder_of_run(tmp_path / "nasty", name=name[:100], **{name: small(run=name[:100])})
    (folder / "run.json").write_text(json.dumps({"arch": NASTY, NASTY: {NASTY: NASTY}}))
    metrics = pd.read_csv(folder / "metrics.csv")
    metrics.assign(kind=NASTY).to_csv(folder / "metrics.csv", index=False)
    nasty = Elements(page_of(folder, title=NASTY))
    check_nothing_new(clean, nasty)
    assert NASTY in nasty.text


# -------------------------------------------------------------------------------------------------------------- the command
@pytest.mark.installed
def test_the_command_writes_one_page_and_does_not_overwrite_it(tmp_path):
    folder = folder_of_run(tmp_path, capacity=small())
    out = tmp_path / "page.html"
    assert "from 1 table; open it in a browser" in done("report", folder, "-o", out, "--title", "A title")
    assert "<title>A title</title>" in out.read_text()
    code, _, err = run("report", folder, "-o", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "--force" in err
    done("report", folder, "-o", out, "--force")
    assert not list(tmp_path.glob("*.partial"))


def test_the_command_says_in_one_line_what_it_wants(tmp_path):
    for words, code, said in (
        ([tmp_path], 3, "make them with manigeo capacity"),
        ([tmp_path / "none"], 3, "does not exist"),
        ([tmp_path, "-o", tmp_path / "page.pdf"], 2, "reports are written as .html"),
    ):
        got, out, err = run("report", *words)
        assert (got, out, err.count("\n")) == (code, "", 1)
        assert said in err


@pytest.mark.installed
def test_the_report_needs_no_network_of_its_own():
    loaded = modules_after("import manigeo.report")
    assert not loaded & {"torch", "manigeo_extract", "h5py", "click"}


# ------------------------------------------------------------------------------------------- several runs, and one's own
def run_with_answer(at: Path, name: str, step: int) -> Path:
    """A run whose permuted manifolds come apart at one layer, with its localization."""
    from manigeo.localization.statement import localization_table

    rng = np.random.default_rng(step)
    rows = [
        {"run": name, "checkpoint": checkpoint, "epoch": epoch, "layer": f"h{depth}", "depth": depth, "kind": "permuted",
         "manifold": f"c{i}", "metric": "capacity", "settings": SAMPLE, "fingerprint": f"{name}{checkpoint}",
         "value": 0.25 + (0.2 if checkpoint == "last" and depth >= step else 0) + 0.004 * rng.random()}
        for checkpoint, epoch in (("best", 6), ("last", 40)) for depth in range(6) for i in range(12)
    ]  # fmt: skip
    folder = folder_of_run(at, name=name)
    (folder / "analysis").mkdir()
    write_results(as_table(rows), folder / "analysis" / "capacity.csv")
    found = localization_table({name: as_table(rows)}, {name: 0.99}, n_resamples=100)
    write_results(found, folder / "analysis" / "localize.csv")
    return folder


def test_runs_are_answered_one_by_one_and_together_with_their_range(tmp_path):
    folders = [run_with_answer(tmp_path, name, step) for name, step in (("s0", 2), ("s1", 4))]
    page = Elements(render_page(collect_sources(folders)))
    text = " ".join(page.text.split())
    answer = text[: text.index("Has it memorized?")]
    assert answer.index("All runs together") < answer.index("come apart at h2: ") < answer.index("come apart at h4: ")
    line = re.sub(r"\s", "", answer[answer.index("Run by run") :])
    assert "geometryh2h440to80%(2of2)" in line
    one = Elements(render_page(collect_sources(folders[:1]))).text
    assert "Run by run" not in one
    assert "together" not in one[: one.index("Has it memorized?")]


def test_two_answers_about_one_run_have_the_names_of_their_files(tmp_path):
    folder = run_with_answer(tmp_path, "s0", 2)
    assert "analysis/localize.csv" not in re.findall("<h3>.*</h3>", render_page(collect_sources([folder])))[0]
    shutil.copy(folder / "analysis" / "localize.csv", folder / "another.csv")
    found = re.findall("<h3>s0.*</h3>", render_page(collect_sources([folder])))
    assert found == [f"<h3>s0 <small>{name}</small></h3>" for name in ("s0/analysis/localize.csv", "s0/another.csv")]


def test_two_answers_are_not_drawn_on_one_axis_as_their_mean(tmp_path):
    from manigeo.plots.localization import plot_depth

    files = [read_results(run_with_answer(tmp_path, n, s) / "analysis/localize.csv") for n, s in (("s0", 2), ("s1", 4))]
    with pytest.raises(InputError, match="two values of the same numbers"):
        plot_depth(pd.concat(files))
    figure = plot_depth(files[0])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "0", "100", "0", "0", "0"]


def test_figures_and_tables_of_ones_own_stand_on_the_page_as_text(tmp_path):
    import matplotlib.figure

    from manigeo.errors import UsageError
    from manigeo.report import Report

    folder_of_run(tmp_path, capacity=small())
    figure = matplotlib.figure.Figure()
    ax = figure.subplots()
    ax.plot([0, 1], [1, 0])
    mine = pd.DataFrame({"layer": [NASTY, "h1"], "mine": [0.123456, 2.0]})
    report = Report(tmp_path, title="Mine").add_figure(ax, NASTY, NASTY).add_table(mine, "A measure", "Of mine.")
    path = report.save(tmp_path / "page.html")
    page = Elements(path.read_text())
    text = page.text
    assert text.count(NASTY) >= 3
    places = [
        text.index("Figures\n"),
        text.index("Added to this page"),
        text.index("A measure"),
        text.rindex("Caveats\n"),
    ]
    assert places == sorted(places)
    assert "0.1235" in text
    assert len(page.of("script")) == 1
    assert page.of("img") == []
    with pytest.raises(UsageError, match="exists: give another"):
        report.save(path)
    with pytest.raises(UsageError, match="expected a figure or axes of matplotlib, got a list"):
        report.add_figure([1, 2], "no figure")
    with pytest.raises(UsageError, match=r"pandas.DataFrame\(...\) makes one"):
        report.add_table([1, 2], "no table")


def table_of_examples(n=100, run_id="3f", **columns) -> pd.DataFrame:
    """A table of ``n`` training examples, of which those with the larger index are the more memorized."""
    shown = {"index": range(n), "split": "train", "true_label": 0, "train_label": 1, "kind": "permuted"}
    examples = pd.DataFrame(shown | columns)
    return example_rows(examples, {"prediction_depth": np.arange(n) * 1.0}, place={"run": "run", "run_id": run_id})


def with_examples(at: Path, table: pd.DataFrame) -> Path:
    folder = folder_of_run(at, capacity=small(settings='{"analysis": "mean_field", "run_id": "3f"}'))
    (folder / "run.json").write_text('{"run_id": "3f"}')
    write_examples(table, folder / "a.examples.csv")
    return folder


def test_examples_of_a_run_are_shown_from_both_ends_and_the_rest_is_counted(tmp_path):
    page = render_page(collect_sources([with_examples(tmp_path, table_of_examples())]))
    section = page[page.index('id="examples"') : page.index('id="tables"')]
    rows = re.findall(r'<th scope="row" data-v="permuted">.*?data-v="(\d+)">', section)
    assert [int(index) for index in rows] == [*range(99, 69, -1), *range(29, -1, -1)]
    assert "60 of 100 examples: of each kind the most and the least memorized by prediction depth" in section
    assert "<svg" in section  # the depths


def test_nothing_of_a_table_of_examples_becomes_markup(tmp_path):
    nasty = with_examples(tmp_path, table_of_examples(3, kind=NASTY)).rename(tmp_path / "&lt;b>run")
    page = render_page(collect_sources([nasty]))
    assert len(re.findall("<script>", page)) == 1
    assert "alert(1)</script>" not in page


def test_examples_of_another_training_are_left_out_unless_they_are_named(tmp_path):
    folder = with_examples(tmp_path, table_of_examples(run_id="9c"))
    found = collect_sources([folder])
    assert not found.examples
    assert any("of another training" in note for note in found.left_out)
    assert len(collect_sources([folder, folder / "a.examples.csv"]).examples) == 1
    with pytest.raises(InputError, match="stands beside results: name the folder of its run"):
        collect_sources([folder / "a.examples.csv"])
