"""``manigeo gradients``: which part of the gradient knows the labels, layer by layer, kind by kind."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.tables import tell

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.gradients.tables import Survey

KINDS = ("unpermuted", "permuted", "restored", "test")


# fmt: off
@click.command("gradients")
@options.run_argument
@options.checkpoints_option("all", "Where to look: checkpoints by name or epoch (init, 10, best), or all of the run.")
@click.option("--kinds", multiple=True, type=click.Choice(KINDS), help="Kinds of examples; may be repeated. Default: all.")
@click.option("--sizes", metavar="N,N,...", callback=options.whole_numbers(
                  "two numbers of examples or more with commas between, e.g. 200,2000", least=1, fewest=2),
              help="Also the norms against the number of examples, e.g. 200,2000,20000, with their slope: -1/2 where labels "
              "are nothing but chance.")
@click.option("--sizes-at", default="init", show_default=True, metavar="NAME", help="The checkpoint of --sizes.")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=1), help="Draws of --sizes.")
@options.run_options
@options.results_option("gradients.csv")
@options.table_options
def gradients_command(
    run: Path, checkpoints: tuple[str, ...], kinds: tuple[str, ...], sizes: tuple[int, ...], sizes_at: str,
    repetitions: int, out: Path, as_json: bool, force: bool, **asked: Any,
) -> None:
    """The label-dependent and the label-independent part of the gradient of the loss, in every layer, for every kind of
    examples, over the checkpoints of RUN (a folder of manigeo train or of a recorder).

    All kinds are looked at through as many examples, since the norm of a mean gradient falls with their number. Networks
    are in eval mode, and left as they were.
    """
    from manigeo.results import check_results_path
    from manigeo_extract.gradients.tables import Sweep, plan_survey
    from manigeo_extract.interventions.groups import select_groups
    from manigeo_extract.opening import RunRequest, open_groups, open_run, requested

    check_results_path(out, force)
    request = requested(RunRequest, asked)
    opened = open_run(run, request, options.note)
    groups = select_groups(open_groups(opened, request), request.layers)
    sweep = Sweep(opened.snapshot(sizes_at), tuple(sorted(set(sizes))), repetitions) if sizes else None
    survey = plan_survey(
        opened, groups, opened.select(checkpoints), kinds, sweep, request.most, request.batch_size, request.model.seed
    )
    click.echo(describe_survey(survey), err=as_json)
    table = _compute(survey, out)
    tell(table, out, gradient_report, as_json)


# fmt: on
def describe_survey(survey: "Survey") -> str:
    """Describe what is compared, and through how many examples."""
    sizes = {sample.kinds[0]: len(sample.rows) for sample in survey.samples}
    limit = next((f", what {kind} has" for kind, n in sizes.items() if n == survey.n < max(sizes.values())), "")
    lines = [
        f"{len(survey.groups)} layers x {len(survey.kinds)} kinds x {len(survey.snapshots)} checkpoints "
        f"({', '.join(snapshot.name for snapshot in survey.snapshots)}), {survey.n} examples of each kind{limit}"
    ]
    if sweep := survey.sweep:
        sizes_text = ", ".join(map(str, sweep.sizes))
        lines.append(f"and {sizes_text} examples, {sweep.repetitions} draws each, at {sweep.snapshot.name}")
    return "\n".join(lines)


def _compute(survey: "Survey", out: Path) -> "pd.DataFrame":
    """The table, written to ``out``; so are the checkpoints that were finished when something comes in between."""
    import pandas as pd

    from manigeo.results import write_results
    from manigeo_extract.gradients.tables import survey_tables

    parts: list[pd.DataFrame] = []
    try:
        for part in survey_tables(survey, progress=True):
            parts.append(part)
    except BaseException:
        if parts:
            write_results(pd.concat(parts, ignore_index=True), out, force=True)
            click.echo(f"what was finished is in {out}: {_finished(parts)}", err=True)
        raise
    table = pd.concat(parts, ignore_index=True)
    write_results(table, out, force=True)
    return table


def _finished(parts: "list[pd.DataFrame]") -> str:
    return ", ".join(part["checkpoint"].iloc[0] for part in parts)


# metric -> its name in the report
REPORTED = {
    "label_dependent_centred_norm": "label-dependent part, centred",
    "label_independent_centred_norm": "label-independent part, centred",
    "gradient_norm": "gradient",
    "parts_centred_cosine": "cosine of the two parts",
}


def gradient_report(table: "pd.DataFrame") -> str:
    """The whole network at every checkpoint, the layers at the last, and slopes: value ± standard error, one column per
    kind."""
    of_layer = table["layer"] != "(all)"
    last = table.loc[table["metric"] == "gradient_norm", "checkpoint"].iloc[-1]
    blocks = []
    for metric, name in REPORTED.items():
        rows = table["metric"] == metric
        blocks.append(_block(table[rows & ~of_layer], "checkpoint", f"{name}, whole network"))
        blocks.append(_block(table[rows & of_layer & (table["checkpoint"] == last)], "layer", f"{name}, {last}"))
    for part in ("label_dependent_centred", "label_independent_centred"):
        swept, slopes = (table[table["metric"] == f"{part}_{ending}"] for ending in ("norm_sweep", "slope"))
        if not swept.empty:
            name = f"{REPORTED[f'{part}_norm']}, {swept['checkpoint'].iloc[0]}"
            blocks.append(_block(swept[swept["layer"] == "(all)"], "n", f"{name}, whole network, over n examples"))
            blocks.append(_block(slopes, "layer", f"{name}, slope of log norm against log n"))
    return "\n\n".join(blocks)


def _block(rows: "pd.DataFrame", lines: str, title: str) -> str:
    cells = rows.assign(cell=[_cell(v, e) for v, e in zip(rows["value"], rows["stderr"], strict=True)])
    wide = cells.pivot(index=lines, columns="kind", values="cell")
    order = list(dict.fromkeys(rows[lines]))
    text: str = (
        wide.loc[order, [kind for kind in KINDS if kind in wide]].rename_axis(index=None, columns=None).to_string()
    )
    return f"{title}\n{text}"


def _cell(value: float, error: float) -> str:
    """Format a number with as many decimals as the error has a meaning for.

    >>> _cell(16.04, 0.123), _cell(0.5, float("nan"))
    ('16.0 ± 0.1', '0.5')
    """
    if value != value:
        return "-"
    if not error > 0:
        return f"{value:.3g}"
    decimals = max(0, -math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
