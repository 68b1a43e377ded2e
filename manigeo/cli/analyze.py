"""``manigeo analyze``: everything that is to be known of a run, as the commands that a user would type."""

import shlex
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.steps import run_command
from manigeo.errors import ManigeoError, UsageError, one_line
from manigeo.execution.pipeline import INTERRUPTED, UP_TO_DATE, Ledger, Step
from manigeo.storage.owned import append_own

STEPS = ("extract", "capacity", "separability", "weights", "rewind", "reinit", "gradients", "localize", "report")
_MEASURES = ("probe", "neighbours", "clusters", "means")
_RESUMABLE = ("extract", "capacity", "separability", "rewind", "reinit", "gradients")


def _names(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in STEPS:
            raise click.BadParameter(f"there is no step {name!r}; the steps are {', '.join(STEPS)}", ctx, param)
    return names


@click.command("analyze")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--checkpoints",
    metavar="NAMES",
    help="Whose activations are analysed: checkpoints by the names of their files, with commas between.  [default: that "
    "before memorization, last]",
)
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers that extract writes; may be repeated.")
@click.option("--per-class", type=click.IntRange(min=2), help="Examples per class for capacity and separability.")
@click.option(
    "--classes",
    type=click.IntRange(min=2),
    metavar="P",
    help="Number of classes for capacity and separability, drawn at random.",
)
@click.option("--skip", multiple=True, callback=_names, metavar="STEP", help=f"Leave a step out: {', '.join(STEPS)}.")
@options.arch_options
@options.file_options
@options.data_options
@options.labels_option
@options.device_option
@options.jobs_option(default=-1)
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def analyze_command(
    run: Path, checkpoints: str | None, skip: tuple[str, ...], dry_run: bool, force: bool, **request: Any
) -> None:
    """Analyze a run of manigeo train or of a recorder, up to its report: extract, capacity, separability (without
    margins, which take longest: manigeo separability --resume adds them), weights, rewind, reinit, gradients, localize,
    report.

    Results go to RUN/analysis. What is up to date is not done again; --force does all of it. What the commands print is in
    RUN/analysis/log.txt.
    """
    from manigeo.runs import run_tables

    steps = _steps(run, _checkpoints(run, checkpoints or _compared(run, request)), skip, request)
    ledger = Ledger(run / "analysis" / "steps.json", steps)
    todo = [step for step in steps if force or ledger.state(step) != UP_TO_DATE]
    for step in steps:
        click.echo(f"{'to do' if force else ledger.state(step):12} manigeo {shlex.join(step.words)}")
    if dry_run:
        return
    failed = _carried_out(todo, ledger, force)
    if not failed and "localize" not in skip:
        click.echo("\n" + _answer(run))
        options.tell_left_out(run_tables(run))
    results = [str(step.result) for step in steps if step.name == "report"] or [str(run / "analysis")]
    click.echo(
        f"{len(todo) - len(failed)} of {len(steps)} steps were done, {len(steps) - len(todo)} were up to date: {results[0]}"
    )
    if failed:
        raise ManigeoError(f"left out: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")


def _compared(run: Path, request: Mapping[str, Any]) -> str:
    """The names of the checkpoints that are compared by default: before memorization and at the end.

    Where the metrics do not tell which epoch is before memorization, the checkpoints are scored. Where none is, the reason
    is said, and what needs no comparison is done.
    """
    from manigeo.localization.reference import known_curves, run_reference
    from manigeo.runs import RunFolder
    from manigeo_extract.opening import RunRequest, open_run, requested

    folder = RunFolder(run)
    names = folder.checkpoint_names()
    try:
        if known_curves(folder):
            found = run_reference(folder)
            before = found[0] if found else ""
        else:
            before = open_run(run, requested(RunRequest, request)).reference.path.stem
    except ManigeoError as error:
        options.note(str(error))
        before = ""
    return ",".join(name for name in (before, "last") if name in names) or "last"


def _checkpoints(run: Path, asked: str) -> dict[str, Path]:
    """Names and files, without those that are the same as a later one.

    Raises :class:`~manigeo.errors.UsageError` for one that is not there.
    """
    from manigeo.runs import RunFolder, file_digest

    folder = RunFolder(run)
    found, names = folder.checkpoint_names(), asked.split(",")
    for name in names:
        if name not in found:
            raise UsageError(f"{run} has no checkpoint {name!r}; there are: {', '.join(found) or 'none'}")
    content = {file_digest(folder.checkpoint(name)): name for name in names}
    return {name: folder.checkpoint(name) for name in content.values()}


def _steps(run: Path, files: Mapping[str, Path], skip: Sequence[str], request: Mapping[str, Any]) -> list[Step]:
    """The commands in their order."""
    folder = run / "analysis"
    every = sorted((run / "checkpoints").glob("*.pt"))
    seeded, jobs = ("--seed", str(request["seed"])), ("--jobs", str(request["jobs"]))
    reading = _repeated(request, "state_key", "ema", "no_strict", "trust")
    network = [*_repeated(request, "device", "arch", "arch_args", "data", "data_args", "permute", "convention",
                          "permute_seed", "labels"), *reading, *seeded]  # fmt: skip
    sample = [*_repeated(request, "per_class", "classes"), *jobs, *seeded]
    steps: list[Step] = []

    def add(
        name: str, words: Sequence[object], result: str, reads: Sequence[Path] = (), after: Sequence[str] = ()
    ) -> None:
        if words[0] not in skip:
            known = {step.name for step in steps}
            out = folder / result
            line = (*map(str, words), "--out", str(out))
            steps.append(Step(name, line, out, tuple(reads), tuple(n for n in after if n in known)))

    for name, path in files.items():
        layers = _repeated(request, "layers")
        add(f"extract {name}", ["extract", "--model", path, *layers, *network], f"{name}.h5", [path])
        add(f"capacity {name}", ["capacity", folder / f"{name}.h5", *sample], f"{name}.capacity.csv",
            after=[f"extract {name}"])  # fmt: skip
    stored = [folder / f"{name}.h5" for name in files]
    measures = [word for name in _MEASURES for word in ("--measures", name)]
    add("separability", ["separability", *stored, *measures, *sample], "separability.csv",
        after=[f"extract {name}" for name in files])  # fmt: skip
    add("weights", ["weights", run, *reading], "weights.csv", every)
    add("rewind", ["rewind", run, *jobs, *network], "rewind.csv", every)
    add("reinit", ["reinit", run, *jobs, *network], "reinit.csv", every)
    epochs = ",".join(["init", *files])
    add("gradients", ["gradients", run, "--checkpoints", epochs, *network], "gradients.csv", every)
    before = [step.name for step in steps]
    add("localize", ["localize", run, *seeded], "localize.csv", [run / "metrics.csv"], before)
    add("report", ["report", run], "report.html", [run / "metrics.csv", run / "run.json"], [*before, "localize"])
    return steps


def _repeated(request: Mapping[str, Any], *names: str) -> list[str]:
    """The options that were given, for another command that has them too."""
    of_command = {param.name: param for param in analyze_command.params}
    given = ((of_command[name], request[name]) for name in names)
    return [word for param, value in given if value not in (None, (), {}) for word in options.typed(param, value)]


def _carried_out(todo: Sequence[Step], ledger: Ledger, force: bool) -> dict[str, str]:
    """Carry out the steps; return those that failed, and why. The ledger knows of every step that was finished."""
    failed: dict[str, str] = {}
    log = ledger.path.parent / "log.txt"
    for number, step in enumerate(todo, 1):
        began = time.monotonic()
        if missing := [name for name in step.after if name in failed and step.name not in ("localize", "report")]:
            failed[step.name] = f"needs {missing[0]}"
            continue
        click.secho(f"[{number}/{len(todo)}] {step.name}", bold=True)
        goes_on = not force and ledger.state(step) == INTERRUPTED and step.words[0] in _RESUMABLE
        ledger.begin(step)
        try:
            run_command([*step.words, "--resume" if goes_on else "--force"], log)
        except KeyboardInterrupt:
            raise
        except Exception as error:  # of the user's own network or data, too: what comes after is worth having
            failed[step.name] = (
                str(error) if isinstance(error, ManigeoError) else f"{type(error).__name__}: {one_line(error)}"
            )
            click.echo(f"  {failed[step.name]}", err=True)
            with open(append_own(log), "a") as file:
                traceback.print_exc(file=file)
        else:
            ledger.finish(step)
            click.echo(f"  {time.monotonic() - began:.0f} s")
    return failed


def _answer(run: Path) -> str:
    from manigeo.localization.statement import describe_localization
    from manigeo.results import read_results

    return describe_localization(read_results(run / "analysis" / "localize.csv"))
