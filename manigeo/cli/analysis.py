"""``manigeo analyze``: everything that is to be known of a run, as the commands that a user would type."""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from manigeo.cli import options
from manigeo.errors import ManigeoError, UsageError
from manigeo.pipeline import INTERRUPTED, UP_TO_DATE, Ledger, Step

STEPS = ("extract", "capacity", "separability", "weights", "rewind", "reinit", "gradients", "localize", "report")
_RESUMABLE = ("extract", "capacity", "separability", "rewind", "reinit")


def _names(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in STEPS:
            raise click.BadParameter(f"there is no step {name!r}; the steps are {', '.join(STEPS)}", ctx, param)
    return names


@click.command("analyze")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--checkpoints",
    default="best,last",
    show_default=True,
    metavar="NAMES",
    help="Whose activations are analysed: checkpoints by the names of their files, with commas between.",
)
@click.option("--layers", multiple=True, metavar="GLOB", help="Of extract: layers to write; may be repeated.")
@click.option("--per-class", type=click.IntRange(min=2), help="Of capacity and separability: examples of each class.")
@click.option(
    "--classes",
    type=click.IntRange(min=2),
    metavar="P",
    help="Of capacity and separability: P classes, drawn at random.",
)
@click.option("--skip", multiple=True, callback=_names, metavar="STEP", help=f"Leave a step out: {', '.join(STEPS)}.")
@options.device_option
@options.jobs_option(default=-1)
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def analyze_command(
    run: Path, checkpoints: str, layers: tuple[str, ...], per_class: int | None, classes: int | None, skip: tuple[str, ...],
    device: str, jobs: int, seed: int, dry_run: bool, force: bool,
) -> None:  # fmt: skip
    """From a run of manigeo train to its report: extract, capacity, separability, weights, rewind, reinit, gradients,
    localize, report.

    Results go to RUN/analysis. What is up to date is not done again; --force does all of it. What the commands print is in
    RUN/analysis/log.txt.
    """
    steps = _steps(run, checkpoints.split(","), layers, per_class, classes, skip, device, jobs, seed)
    ledger = Ledger(run / "analysis" / "steps.json", steps)
    todo = [step for step in steps if force or ledger.state(step) != UP_TO_DATE]
    for step in steps:
        click.echo(f"{'to do' if force else ledger.state(step):12} manigeo {shlex.join(step.words)}")
    if dry_run:
        return
    failed = _carried_out(todo, ledger, force)
    if not failed and "localize" not in skip:
        click.echo("\n" + _answer(run))
    results = [str(step.result) for step in steps if step.name == "report"] or [str(run / "analysis")]
    click.echo(
        f"{len(todo) - len(failed)} of {len(steps)} steps were done, {len(steps) - len(todo)} were up to date: {results[0]}"
    )
    if failed:
        raise ManigeoError(f"left out: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")


def _steps(
    run: Path, names: Sequence[str], layers: Sequence[str], per_class: int | None, classes: int | None, skip: Sequence[str],
    device: str, jobs: int, seed: int,
) -> list[Step]:  # fmt: skip
    """The commands in their order."""
    folder, files = run / "analysis", {name: run / "checkpoints" / f"{name}.pt" for name in names}
    for name, path in files.items():
        if not path.is_file():
            found = ", ".join(sorted(p.stem for p in path.parent.glob("*.pt"))) or "none"
            raise UsageError(f"{run} has no checkpoint {name!r}; there are: {found}")
    every = sorted((run / "checkpoints").glob("*.pt"))
    seeded, on = ("--seed", str(seed)), ("--device", device)
    chosen = [word for layer in layers for word in ("--layers", layer)]
    sample = [
        *(["--per-class", str(per_class)] if per_class else []),
        *(["--classes", str(classes)] if classes else []),
    ]
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
        add(f"extract {name}", ["extract", "--model", path, *chosen, *on, *seeded], f"{name}.h5", [path])
    for name in names:
        acts = folder / f"{name}.h5"
        add(f"capacity {name}", ["capacity", acts, *sample, "--jobs", jobs, *seeded], f"{name}.capacity.csv",
            after=[f"extract {name}"])  # fmt: skip
    stored = [folder / f"{name}.h5" for name in names]
    extracted = [f"extract {name}" for name in names]
    add(
        "separability", ["separability", *stored, *sample, "--jobs", jobs, *seeded], "separability.csv", after=extracted
    )
    add("weights", ["weights", run], "weights.csv", every)
    add("rewind", ["rewind", run, *on, *seeded], "rewind.csv", every)
    add("reinit", ["reinit", run, *on, *seeded], "reinit.csv", every)
    add(
        "gradients",
        ["gradients", run, "--checkpoints", ",".join(["init", *names]), *on, *seeded],
        "gradients.csv",
        every,
    )
    before = [step.name for step in steps]
    add("localize", ["localize", run, *seeded], "localize.csv", [run / "metrics.csv"], before)
    add("report", ["report", run], "report.html", [run / "metrics.csv", run / "run.json"], [*before, "localize"])
    return steps


def _carried_out(todo: Sequence[Step], ledger: Ledger, force: bool) -> dict[str, str]:
    """What failed, and why; the rest is done. The ledger knows of every step that was finished."""
    failed: dict[str, str] = {}
    for number, step in enumerate(todo, 1):
        if missing := [name for name in step.after if name in failed and step.name not in ("localize", "report")]:
            failed[step.name] = f"needs {missing[0]}"
            continue
        click.secho(f"[{number}/{len(todo)}] {step.name}", bold=True)
        goes_on = not force and ledger.state(step) == INTERRUPTED and step.words[0] in _RESUMABLE
        ledger.begin(step)
        try:
            _run([*step.words, "--resume" if goes_on else "--force"], ledger.path.parent / "log.txt")
        except ManigeoError as error:
            failed[step.name] = str(error)
            click.echo(f"  {error}", err=True)
        else:
            ledger.finish(step)
    return failed


def _run(words: Sequence[str], log: Path) -> None:
    """One command; what it prints goes below what the others have printed, its progress to the terminal."""
    from manigeo.cli.main import cli

    with open(log, "a") as file, contextlib.redirect_stdout(file):
        click.echo(f"\n$ manigeo {shlex.join(words)}")
        cli.main(list(words), standalone_mode=False)


def _answer(run: Path) -> str:
    from manigeo.results import read_results
    from manigeo.verdicts import describe_localization

    return describe_localization(read_results(run / "analysis" / "localize.csv"))
