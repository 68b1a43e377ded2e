"""The contract of the shared words: every metric, flag and figure that the code can write has one name and a sentence."""

import ast
import doctest
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo import capacity_table, plan_capacity, plan_separability, plots, separability_table, vocabulary
from manigeo.cli.main import COMMANDS
from manigeo.correlation import COEFFICIENTS
from manigeo.kinds import ALL_KINDS, KINDS, in_order
from manigeo.layerwise.best import with_choices
from manigeo.layerwise.geometry import Joint, Simulated, Sweep
from manigeo.layerwise.separability import Means, Neighbours, Probe
from manigeo.plots import FIGURES, plot_geometry
from manigeo.plots.style import DRAWINGS
from manigeo.report.tables import metric_tables
from manigeo.results import as_table
from manigeo.text.cells import NOTHING, blocks, cell, flag_lines
from manigeo.vocabulary import ENDINGS, FLAGS, METRICS, flag_words, flags_words, metric_words
from manigeo.weights import MEASURES
from manigeo_extract.gradients.decomposition import PARTS
from tests.command_line import done
from tests.test_separations import write

FIELDS = {"flag", "flags", "metric", "value"}  # names beside flags
# what returns, or takes, flags under another name
FLAGGING = {"_reason", "obstacle", "_too_few", "_off_center", "joined", "nothing", "Correlation", "flags.append"}


def sources() -> Iterator[ast.Module]:
    for package in ("manigeo", "manigeo_extract"):
        for file in Path(importlib.import_module(package).__file__).parent.rglob("*.py"):
            if file.parent.name != "vocabulary":
                yield ast.parse(file.read_text())


def texts(node: ast.AST) -> Iterator[str]:
    """What an expression can give, with 2 for every value in it; not what it compares with or looks up."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "2" for part in node.values)
    elif not isinstance(node, (ast.Compare, ast.Subscript)):
        for part in ast.iter_child_nodes(node):
            yield from texts(part)


def written_flags(tree: ast.Module) -> Iterator[ast.AST]:
    """The expressions that give a flag: under that name, in a function or variable of such a name, and ``name:value``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "flag")
        elif (isinstance(node, ast.keyword) and node.arg == "flag") or (
            isinstance(node, ast.Assign) and "flag" in ast.unparse(node.targets[0])
        ):
            yield node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in FLAGGING:
            yield from node.args
        elif isinstance(node, ast.FunctionDef) and ("flag" in node.name or node.name in FLAGGING):
            yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value)
            yield from (part for part in ast.walk(node) if isinstance(part, ast.Dict))
        elif isinstance(node, ast.JoinedStr) and re.match(r"[a-z]+(_[a-z0-9]+)+:2", next(texts(node))):
            yield node


def flags_in_the_source() -> set[str]:
    found = {text for tree in sources() for node in written_flags(tree) for text in texts(node)}
    return {name for text in found if re.fullmatch("[a-z][a-z_0-9]+", name := text.partition(":")[0])}


# ---------------------------------------------------------------------------------------------------------------- flags
def test_every_flag_that_the_source_can_write_has_a_sentence():
    of_others = {f"background_{name}" for name in ("unequal_points", "left_out", "dropped")}
    found = flags_in_the_source() - FIELDS - {"background_2"} | of_others
    assert len(found) > 40
    assert {name for name in found if flag_words(name) == name} == set()


def test_no_sentence_is_of_a_flag_that_is_never_written():
    names = {name.removeprefix("background_") for name in FLAGS}
    assert names - flags_in_the_source() == set()


@given(st.text("abc_:;, 019<>=.-"))
def test_flags_and_metrics_of_other_programs_stand_for_themselves(name):
    for part in name.split(";"):
        assert part.partition(":")[0] in flags_words(name)
    assert metric_words(name).name == name.replace("_", " ")
    assert metric_words(name).family == ""


def test_printed_flags_are_sentences_with_the_kinds_and_layers_they_are_about():
    rows = [
        {"layer": f"h{i}", "kind": kind, "flag": "at_edge" if i else "", "metric": "m"}
        for i in (0, 1)
        for kind in KINDS
    ]
    (block,) = flag_lines(as_table([*rows, {"layer": "h0", "kind": "mine", "flag": "at_edge;new:3"}]))
    places = ", ".join(f"{kind} (h1)" for kind in KINDS)
    assert block.splitlines() == ["flags", f"{FLAGS['at_edge']}: {places}, mine (h0)", "new (3): mine (h0)"]


# -------------------------------------------------------------------------------------------------------------- metrics
def metrics_in_the_source() -> set[str]:
    """Under the key ``metric``, and those that a measure declares; without what a value stands in for."""
    found: set[str] = set()
    for node in (node for tree in sources() for node in ast.walk(tree)):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            found |= {t for key, value in pairs if ast.unparse(key or node) == "'metric'" for t in texts(value)}
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and ast.unparse(node).startswith("metrics"):
            found |= set(texts(node.value))
    return {name for name in found if re.fullmatch("[a-z][a-z_]*", name)}


def test_every_metric_that_the_source_can_write_has_a_name():
    found = metrics_in_the_source() | {*MEASURES, *(f"{part}_norm" for part in PARTS), *COEFFICIENTS}
    assert len(found) > 50
    assert {name for name in found if not metric_words(name).family} == set()


def test_every_metric_of_a_table_of_capacities_or_separabilities_has_a_name(tmp_path):
    path = write(tmp_path / "acts.h5")
    also = [Simulated(50), Joint(10), Sweep((3, 5), n_draws=10)]
    capacities = capacity_table(plan_capacity(path, n_draws=10, bootstrap=100, also=also, kinds=["test", "permuted"]))
    measured = separability_table(
        plan_separability(path, kinds=["test"], measures=[Probe(3), Neighbours((3,)), Means(3)])
    )
    table = pd.concat([capacities, with_choices(measured, ["probe_accuracy", "fisher_ratio"])])
    names = set(table["metric"])
    assert {
        "capacity_joint",
        "radius_sweep",
        "axis_alignment_joint",
        "knn_purity_3_chance",
        "best_value_split",
    } <= names
    assert {name for name in names if not metric_words(name).family} == set()
    assert {flag for flags in table["flag"] if flags for flag in flags.split(";") if flag_words(flag) == flag} == set()


def test_no_two_metrics_have_one_name():
    keys = {key + ending for key in METRICS for ending in ("", *ENDINGS)}
    names = [metric_words(key).name for key in keys]
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_every_family_is_a_command():
    assert {metric.family for metric in METRICS.values()} <= set(COMMANDS)


def test_terminal_figures_and_report_call_a_metric_by_one_name():
    rows = [
        {"layer": f"h{depth}", "depth": depth, "kind": kind, "metric": "center_correlation", "value": 0.5, "stderr": 0.01}
        for depth in (0, 1) for kind in KINDS
    ]  # fmt: skip
    table = as_table(rows)
    name = METRICS["center_correlation"].name
    assert blocks(table, ["center_correlation"])[0].startswith(name)
    assert metric_tables(table)[0].tables[0].title == name
    assert any(ax.get_ylabel().startswith(name) for ax in plot_geometry(table).axes)


# -------------------------------------------------------------------------------------------------------------- figures
def test_every_figure_has_its_line_title_and_caption_and_is_drawn():
    assert set(DRAWINGS) == set(vocabulary.FIGURES)
    for name, words in vocabulary.FIGURES.items():
        assert all(words), name
        assert words.seen.endswith("."), name
        assert words.read.endswith("."), name
        assert FIGURES[name].metrics, name
        assert all(metric_words(metric).family for metric in FIGURES[name].metrics), name
    titles = Counter(words.title for words in vocabulary.FIGURES.values())
    assert max(titles.values()) == 1


def test_the_help_of_plot_lists_every_figure():
    text = " ".join(done("plot", "--help").split())
    assert all(f" {name} {words.line} " in f"{text} " for name, words in vocabulary.FIGURES.items())


# --------------------------------------------------------------------------------------------------- kinds and numbers
@given(st.lists(st.sampled_from([*ALL_KINDS, "validation", "mine", "yours"])))
def test_kinds_come_in_one_order_whatever_order_they_are_given_in(names):
    known = [kind for kind in (*ALL_KINDS, "validation") if kind in names]
    assert in_order(names)[: len(known)] == known
    assert set(in_order(names)) == set(names)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e3), st.sampled_from([1, 2]))
def test_a_number_is_printed_to_the_figures_of_its_error(value, error, figures):
    number, _, printed = cell(value, error, figures=figures).partition(" ± ")
    # half a unit of the last figure of the error; a figure more where rounding carries, as 0.0996 does to 0.10
    assert (
        abs(float(printed) - error) <= 0.5 * 10 ** (np.floor(np.log10(error)) - figures + 1) * (1 + 1e-6) or error >= 1
    )
    assert abs(float(number) - value) <= max(error, 1e-5 * abs(value))


@pytest.mark.parametrize(
    ("error", "digits", "printed"), [(np.nan, 2, "0.50"), (np.nan, None, "0.5"), (0.01, 3, "0.500 ± 0.010")]
)
def test_a_number_without_an_error_or_with_fixed_digits_is_printed_as_asked(error, digits, printed):
    assert cell(0.5, error, digits) == printed


def test_a_missing_number_is_a_dash_with_or_without_an_error():
    assert {cell(np.nan), cell(np.nan, 0.1), cell(np.nan, 0.1, 3)} == {NOTHING}


def test_the_examples_of_figures_run():
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for name, drawing in FIGURES.items():
        runner.run(parser.get_doctest(drawing.draw.__doc__, dict(vars(plots)), name, None, 0))
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 30
