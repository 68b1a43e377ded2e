"""``manigeo analyze``: everything that is to be known of a run, as the commands that a user would type."""

import shlex
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.steps import run_command
from manigeo.cli.subjects import Subject, open_subject
from manigeo.errors import InputError, ManigeoError, one_line, shorten
from manigeo.execution.pipeline import INTERRUPTED, UP_TO_DATE, Ledger, Step
from manigeo.storage.owned import append_own

STEPS = ("extract", "capacity", "separability", "weights", "rewind", "reinit", "gradients", "localize", "report")
# options that say what network, data and labels are, and how weights are read
_NETWORK = ("arch", "arch_args", "data", "data_args", "permute", "convention", "permute_seed", "labels", "kinds_from")
_TELLING = ("labels", "kinds_from")
_READING = ("state_key", "ema", "no_strict", "trust")
_OF_WHAT_THERE_IS = ("localize", "report")  # steps that take what there is of the results before them
_MEASURES = ("probe", "neighbours", "clusters", "means", "fuzziness")
_RESUMABLE = ("extract", "capacity", "separability", "rewind", "reinit", "gradients")


def _names(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in STEPS:
            raise click.BadParameter(f"there is no step {name!r}; the steps are {', '.join(STEPS)}", ctx, param)
    return names


@command("analyze")
@click.argument("run", metavar="RUN|CHECKPOINT", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results of one CHECKPOINT.  [default: its name with -analysis, beside it]",
)
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
@options.kinds_option
@options.device_option
@options.jobs_option(default=-1)
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def analyze_command(
    run: Path,
    out: Path | None,
    checkpoints: str | None,
    skip: tuple[str, ...],
    dry_run: bool,
    force: bool,
    **request: Any,
) -> None:
    """Analyze a run of manigeo train or of a recorder, up to its report: extract, capacity, separability (without
    margins, which take longest: manigeo separability --resume adds them), weights, rewind, reinit, gradients, localize,
    report. Of another program's folder of checkpoints, or of one CHECKPOINT, what these allow; the rest is named at the end.

    Results go to RUN/analysis. What is up to date is not done again; --force does all of it. What the commands print is in
    log.txt beside them.
    """
    from manigeo.runs import run_tables

    for name in _TELLING:
        if request[name] and not Path(request[name]).is_file():
            raise InputError(f"{request[name]}, of --{name.replace('_', '-')}, is no file; check the path")
    subject = open_subject(run, out, checkpoints, request, _repeated(request, *_NETWORK, *_READING))
    steps = _steps(subject, skip, request)
    ledger = Ledger(subject.folder / "steps.json", steps)
    todo = [step for step in steps if force or ledger.state(step) != UP_TO_DATE]
    for step in steps:
        click.echo(f"{'to do' if force else ledger.state(step):12} manigeo {shlex.join(step.words)}")
    if dry_run:
        return
    try:
        failed = _carried_out(todo, ledger, force)
    except KeyboardInterrupt:
        click.echo(options.going_on(), err=True)
        raise
    if "localize" not in {*failed, *skip}:
        click.echo("\n" + _answer(subject.folder))
        options.tell_left_out(run_tables(subject.directory or subject.folder))
    results = [str(step.result) for step in steps if step.name == "report"] or [str(subject.folder)]
    click.echo(
        f"{len(todo) - len(failed)} of {len(steps)} steps were done, {len(steps) - len(todo)} were up to date: {results[0]}"
    )
    if missing := [*subject.missing, *_labels_missing(subject)]:
        click.echo("For more:\n" + "\n".join(f"- {said}" for said in missing))
    if failed:
        raise ManigeoError(f"left out: {_by_reason(failed)}")


def _by_reason(failed: Mapping[str, str]) -> str:
    """The steps that failed, those of one reason together.

    >>> _by_reason({"extract a": "no data", "capacity a": "needs extract a", "rewind": "no data"})
    'extract a, rewind: no data; capacity a: needs extract a'
    """
    reasons: dict[str, list[str]] = {}
    for name, why in failed.items():
        reasons.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())


def _labels_missing(subject: Subject) -> list[str]:
    """Advice where the activations know of no permuted labels."""
    from manigeo.activations import open_activations
    from manigeo.kinds import memorized_kind

    stored = [subject.folder / f"{name}.h5" for name in subject.files]
    for path in filter(Path.is_file, stored):
        with open_activations(path) as acts:
            if memorized_kind(acts.kinds):
                return []
    if not any(map(Path.is_file, stored)):
        return []
    return [
        "where memorization is takes labels that were known to be wrong in training: --labels FILE with those of training, "
        "or --permute and --permute-seed as in manigeo train"
    ]


def _steps(subject: Subject, skip: Sequence[str], request: Mapping[str, Any]) -> list[Step]:
    """The commands in their order."""
    folder, run, files = subject.folder, subject.directory, subject.files
    seeded, jobs = ("--seed", str(request["seed"])), ("--jobs", str(request["jobs"]))
    reading = _repeated(request, *_READING)
    network = [*_repeated(request, "device", *_NETWORK), *reading, *seeded]
    sample = [*_repeated(request, "per_class", "classes"), *jobs, *seeded]
    steps: list[Step] = []
    told = [Path(request[name]) for name in _TELLING if request[name]]  # of examples, by files of the user's own

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
        add(f"extract {name}", ["extract", "--model", path, *layers, *network], f"{name}.h5", [path, *told])
        add(f"capacity {name}", ["capacity", folder / f"{name}.h5", *sample], f"{name}.capacity.csv",
            after=[f"extract {name}"])  # fmt: skip
    stored = [folder / f"{name}.h5" for name in files]
    measures = [word for name in _MEASURES for word in ("--measures", name)]
    add("separability", ["separability", *stored, *measures, *sample], "separability.csv",
        after=[f"extract {name}" for name in files])  # fmt: skip
    if run is not None:
        add("weights", ["weights", run, *reading], "weights.csv", subject.every)
        if subject.has_before:
            add("rewind", ["rewind", run, *jobs, *network], "rewind.csv", [*subject.every, *told])
        if subject.has_initial:
            add("reinit", ["reinit", run, *jobs, *network], "reinit.csv", [*subject.every, *told])
        epochs = ",".join([*(["init"] if subject.has_initial else []), *files])
        add(
            "gradients", ["gradients", run, "--checkpoints", epochs, *network], "gradients.csv", [*subject.every, *told]
        )
    before = [step.name for step in steps]
    of = run or folder
    metrics = [] if run is None else [run / "metrics.csv"]
    add("localize", ["localize", of, *seeded], "localize.csv", metrics, before)
    description = [] if run is None else [run / "run.json"]
    add("report", ["report", of], "report.html", [*metrics, *description], [*before, "localize"])
    return steps


def _repeated(request: Mapping[str, Any], *names: str) -> list[str]:
    """The options that were given, for another command that has them too."""
    return options.given(analyze_command, request, names)


def _carried_out(todo: Sequence[Step], ledger: Ledger, force: bool) -> dict[str, str]:
    """Carry out the steps; return those that failed, and why. The ledger knows of every step that was finished.

    Raises what the first step did where none could be done.
    """
    failed: dict[str, str] = {}
    first: Exception | None = None
    log = ledger.path.parent / "log.txt"
    said = ""
    for number, step in enumerate(todo, 1):
        began = time.monotonic()
        missing = [name for name in step.after if name in failed]
        if missing and (step.name not in _OF_WHAT_THERE_IS or missing == list(step.after)):
            failed[step.name] = f"needs {missing[0]}"
            continue
        if said:  # and others go on
            click.echo(said, err=True)
            said = ""
        click.secho(f"[{number}/{len(todo)}] {step.name}", bold=True)
        goes_on = not force and ledger.state(step) == INTERRUPTED and step.words[0] in _RESUMABLE
        ledger.begin(step)
        try:
            run_command([*step.words, "--resume" if goes_on else "--force"], log)
        except Exception as error:  # of the user's own network or data, too: what comes after is worth having
            first = first or error
            failed[step.name] = (
                str(error) if isinstance(error, ManigeoError) else f"{type(error).__name__}: {one_line(error)}"
            )
            said = f"  {shorten(failed[step.name], 300)}"
            with open(append_own(log), "a") as file:
                traceback.print_exc(file=file)
        else:
            if not missing:  # what was made without some of it is made again
                ledger.finish(step)
            click.echo(f"  {time.monotonic() - began:.0f} s")
    if first is not None and len(failed) == len(ledger.steps):
        raise first
    return failed


def _answer(folder: Path) -> str:
    from manigeo.localization.statement import describe_localization
    from manigeo.results import read_results

    return describe_localization(read_results(folder / "localize.csv"))
