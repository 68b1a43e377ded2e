"""``manigeo localize``: from the results of a run, or of several seeds, to where it is memorized."""

from collections.abc import Sequence
from pathlib import Path

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import check_out, save, tell
from manigeo.errors import InputError, UsageError, shorten


@command("localize")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--resamples",
    default=1000,
    show_default=True,
    type=click.IntRange(min=100),
    help="Draws that carry errors to shares and positions.",
)
@options.near_guessing_option
@options.results_option("localize.csv")
@options.table_options
def localize_command(
    runs: tuple[Path, ...], resamples: int, near_guessing: float | None, out: Path, seed: int, as_json: bool, force: bool
) -> None:  # fmt: skip
    """Locate memorization among the layers. RUNS are folders of manigeo train (several seeds of one network, if there
    are), whose results are found in and beside them; or results tables of one run.

    Two answers are given, each by every method that the tables have numbers for: where permuted examples come apart, and
    which layers hold what was memorized. Both compare with the epoch of highest validation accuracy before memorization.
    """
    from manigeo.localization.gate import gate_accuracy
    from manigeo.localization.measurements import measured_once, measured_otherwise
    from manigeo.localization.reference import known_curves, run_reference
    from manigeo.localization.statement import describe_localization, has_memorized, localization_table
    from manigeo.localization.trials import kind_of
    from manigeo.runs import RunFolder, check_one_network, find_tables, run_tables

    folders, files = [path for path in runs if path.is_dir()], [path for path in runs if not path.is_dir()]
    check_one_network(folders)
    limit = _common_limit(folders, near_guessing)
    found_in = {str(folder): measured_once(run_tables(folder)) for folder in folders}
    gates = {run: gate_accuracy(_recorded(run), found.table, found.folders) for run, found in found_in.items()}
    curves = {run: known for run in found_in if (known := known_curves(RunFolder(Path(run)))) is not None}
    for run in found_in:
        if has_memorized(gates[run]):
            run_reference(RunFolder(Path(run)), limit)  # refused where no checkpoint can be compared with
    if files:
        named = shorten(", ".join(map(str, files)), 80)
        given = found_in[named] = measured_once(find_tables(files), named=True)
        gates[named] = gate_accuracy(None, given.table, given.folders)
    options.tell_left_out(*found_in.values())
    check_out(out, force)
    tables = {run: found.table for run, found in found_in.items()}
    kind = kind_of(RunFolder(folders[0]).arch if folders else None)
    found = localization_table(
        tables, gates, metrics=curves, network=kind, near_guessing=limit, n_resamples=resamples, seed=seed
    )
    for said in measured_otherwise(tables):
        options.note(f"{said}, and averaged with them")
    save(found, out, force)
    tell(found, out, describe_localization, as_json)


def _common_limit(folders: Sequence[Path], asked: float | None) -> float:
    """The limit of what is before memorization, which the runs have to share."""
    from manigeo.localization.reference import limit_of
    from manigeo.runs import RunFolder

    limits = {limit_of(RunFolder(folder), asked): folder for folder in folders or [Path()]}
    if len(limits) > 1:
        told = ", ".join(f"{limit:g} ({folder})" for limit, folder in sorted(limits.items()))
        raise UsageError(
            f"the runs differ in what counts as before memorization: {told}; give one --near-guessing for all"
        )
    return next(iter(limits))


def _recorded(run: str) -> float | None:
    """Accuracy on permuted labels that a run has recorded; None for another program's folder, with or without metrics."""
    from manigeo.localization.gate import memorized_accuracy
    from manigeo.runs import RunFolder

    try:
        return memorized_accuracy(run)
    except InputError:
        if RunFolder(Path(run)).exists:
            raise
        return None
