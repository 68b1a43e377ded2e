"""``manigeo rewind`` and ``manigeo reinit``: what the trained network does with layers exchanged."""

import functools
import itertools
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from manigeo.cli import options
from manigeo.cli.runs import open_examiner, open_groups, open_run, run_argument, run_options
from manigeo.cli.tables import collected, earlier_table
from manigeo.errors import InputError
from manigeo.execution.workers import open_workers

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.cli.studies import Rows
    from manigeo.results import Part
    from manigeo_extract.interventions.editing import Redraw
    from manigeo_extract.interventions.exchanges import Intervention, Laboratory
    from manigeo_extract.interventions.groups import Group
    from manigeo_extract.training.runs import Run

policy_option = click.option(
    "--batch-norm",
    default="with-stats",
    show_default=True,
    type=click.Choice(["with-stats", "params", "recalibrate"]),
    help="Running statistics: exchanged with the layer, left as they are, or estimated anew on clean training examples.",
)
resume_option = click.option("--resume", is_flag=True, help="Go on with an interrupted table in --out.")
study_options = options.several(
    click.option("--criticality", is_flag=True, help="Also module criticality: how far towards its initial values, and "
                 "under how much noise, a layer can be moved before the training loss rises by a hundredth."),
    click.option("--criticality-examples", default=500, show_default=True, type=click.IntRange(min=1), metavar="N",
                 help="Of --criticality: training examples of a kind."),
    click.option("--final-reset", type=click.IntRange(min=1), metavar="K",
                 help="Also the last 1 ... K layers reset as regularisation, chosen on validation data."),
    click.option("--reset-to", default="init,best,fresh", show_default=True, metavar="NAMES",
                 help="Of --final-reset: checkpoints by name or epoch, init, fresh (draws)."),
    click.option("--retrain-steps", default=200, show_default=True, type=click.IntRange(min=0),
                 help="Of --final-reset: steps in which just the reset layers are trained again; 0 for none."),
    click.option("--utilisation", is_flag=True,
                 help="Also the prefix curve: layers up to each kept, a linear probe on top."),
)  # fmt: skip
SWEEPS = ("last", "each", "prefix")
_WORTH_PROCESSES = 15.0  # seconds of work


@click.command("rewind")
@run_argument
@click.option(
    "--checkpoints",
    default="best",
    show_default=True,
    metavar="NAMES",
    help="To which layers are set back: checkpoints by name or epoch, with commas between (best,10), init, or all.",
)
@click.option("--last-k", "last", is_flag=True, help="Rewind the last 1, 2, ... layers.")
@click.option("--each", is_flag=True, help="Rewind each layer alone.")
@click.option("--prefix", is_flag=True, help="Rewind the first 1, 2, ... layers.")
@click.option("--set", "sets", multiple=True, metavar="NAME,NAME", help="Rewind just these layers; may be repeated.")
@run_options
@policy_option
@options.results_option("rewind.csv")
@options.jobs_option(default=-1)
@options.cluster_option
@options.seed_option
@options.json_option
@resume_option
@options.dry_run_option
@options.force_option
@options.config_option
def rewind_command(
    run: Path, checkpoints: str, last: bool, each: bool, prefix: bool, sets: tuple[str, ...], batch_norm: str, out: Path,
    jobs: int, cluster: str | None, seed: int, as_json: bool, resume: bool, dry_run: bool, force: bool, **request: Any,
) -> None:  # fmt: skip
    """Set layers of the trained network of RUN back to an earlier epoch, and score the four kinds.

    Without --last-k, --each, --prefix or --set: all three sweeps. The best epoch is that of validation data.
    """
    import pandas as pd

    from manigeo.localization.rewinds import rewind_summary
    from manigeo.results import write_results
    from manigeo.text.interventions import rewind_report
    from manigeo_extract.interventions.exchanges import Intervention, sweep_layers
    from manigeo_extract.interventions.groups import select_groups

    earlier = earlier_table(out, resume, force or dry_run)
    bench = Bench(uuid4().hex, "rewind", run, batch_norm, seed, pickle.dumps(request))
    laboratory = open_laboratory(bench)
    opened = laboratory.run
    groups = open_groups(opened, request)
    asked = [name for name, wanted in zip(SWEEPS, (last, each, prefix), strict=True) if wanted]
    sweeps = asked or ([] if sets else list(SWEEPS))
    chosen = select_groups(groups, request["layers"])
    every = [(sweep, layers) for sweep in sweeps for layers in sweep_layers(groups, sweep, chosen)]
    every += [("set", tuple(select_groups(groups, names.split(",")))) for names in sets]
    targets = opened.select(checkpoints.split(","))
    todo = [Intervention("whole", tuple(groups), to) for to in targets]
    todo += [Intervention(sweep, layers, to) for to in targets for sweep, layers in every]
    plan = describe_plan(opened, groups, targets, laboratory, len(todo))
    click.echo(plan.text, err=as_json)
    if dry_run:
        return
    table = _carried_out(bench, todo, out, earlier, plan.jobs(jobs, request["device"]), cluster)
    table = pd.concat(
        [table[~table["metric"].isin(["regained", "selected"])], rewind_summary(table)], ignore_index=True
    )
    write_results(table, out, force=True)
    _tell(table, rewind_report(table), out, as_json)


@click.command("reinit")
@run_argument
@click.option(
    "--checkpoints",
    default="all",
    show_default=True,
    metavar="NAMES",
    help="To which each layer is set: checkpoints by name or epoch, with commas between (init,1,2), or all.",
)
@click.option(
    "--draws",
    default=5,
    show_default=True,
    type=click.IntRange(min=0),
    help="Fresh draws of each layer from its own initialiser; 0 for none.",
)
@click.option("--zero/--no-zero", default=True, show_default=True, help="Also each layer set to zero, as a control.")
@click.option(
    "--cumulative",
    is_flag=True,
    help="Also the first 1, 2, ... and the last 1, 2, ... layers to their initial values together.",
)
@click.option("--set", "sets", multiple=True, metavar="NAME,NAME", help="Also these layers together; may be repeated.")
@click.option(
    "--threshold",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="A layer is critical from this chance-normalised drop of test accuracy on.",
)
@study_options
@run_options
@policy_option
@options.results_option("reinit.csv")
@options.jobs_option(default=-1)
@options.cluster_option
@options.seed_option
@options.json_option
@resume_option
@options.dry_run_option
@options.force_option
@options.config_option
def reinit_command(
    run: Path, checkpoints: str, draws: int, zero: bool, cumulative: bool, sets: tuple[str, ...], threshold: float,
    batch_norm: str, out: Path, jobs: int, cluster: str | None, seed: int, as_json: bool, resume: bool, dry_run: bool,
    force: bool, **request: Any,
) -> None:  # fmt: skip
    """Set each layer of the trained network of RUN to its initial values, to those of every checkpoint, to a fresh draw and
    to zero, and score the four kinds: which layers are critical, and which robust?"""
    from manigeo.cli.studies import studies, study_report
    from manigeo.text.interventions import reinit_report
    from manigeo_extract.interventions.exchanges import FRESH, ZERO, Intervention, sweep_layers
    from manigeo_extract.interventions.groups import select_groups

    earlier = earlier_table(out, resume, force or dry_run)
    bench = Bench(uuid4().hex, "reinit", run, batch_norm, seed, pickle.dumps(request), threshold, draws)
    laboratory = open_laboratory(bench)
    opened = laboratory.run
    initial = opened.snapshot("init")
    groups = open_groups(opened, request)
    chosen = select_groups(groups, request["layers"])
    targets = [s for s in opened.select(checkpoints.split(",")) if s.epoch != opened.place["epoch"]]
    to: list[Any] = [*([FRESH] if draws else []), *([ZERO] if zero else []), *targets]
    todo = [Intervention("each", (group,), target) for target in to for group in chosen]
    if cumulative:
        for sweep in ("prefix", "last"):
            todo += [Intervention(sweep, layers, initial) for layers in sweep_layers(groups, sweep)]
    todo += [Intervention("set", tuple(select_groups(groups, names.split(","))), initial) for names in sets]
    n = len(todo) + max(draws - 1, 0) * len(chosen)
    more = studies(opened, laboratory.examiner, groups, laboratory.redraw, request, seed)
    plan = describe_plan(opened, groups, to, laboratory, n, tuple(more))
    click.echo(plan.text, err=as_json)
    if dry_run:
        return
    table = _carried_out(bench, todo, out, earlier, plan.jobs(jobs, request["device"]), cluster, more)
    _tell(table, "\n\n".join([reinit_report(table), *study_report(table)]), out, as_json)


@dataclass(frozen=True)
class Bench:
    """What it takes to open a laboratory, in whatever process; ``request`` is pickled, to be known again. Another
    ``occasion`` opens it anew: files change between two commands."""

    occasion: str
    analysis: str
    directory: Path
    batch_norm: str
    seed: int
    request: bytes
    threshold: float | None = None
    draws: int = 0


@functools.lru_cache(maxsize=1)
def open_laboratory(bench: Bench) -> "Laboratory":
    """The network and its examples: opened once by each process, for all interventions."""
    from manigeo_extract.interventions.exchanges import Laboratory

    request = pickle.loads(bench.request)
    run = open_run(bench.directory, request, bench.seed)
    redraw = _redraw(run, run.snapshot("init")) if bench.analysis == "reinit" else None
    return Laboratory(
        run, open_examiner(run, request, bench.seed), bench.analysis, bench.batch_norm, bench.threshold, redraw, bench.draws,
        bench.seed, {"group_by": request["group_by"], "examples": request["most"]},
    )  # fmt: skip


def intervened(bench: Bench, at: "Intervention | None") -> "pd.DataFrame":
    """The task of a worker."""
    return open_laboratory(bench).table(at)


def _redraw(run: "Run", initial: Any) -> "Redraw":
    """How layers are drawn again: by themselves, or with the whole network, where it is known how that is built."""
    from manigeo_extract.files.checkpoints import load_checkpoint
    from manigeo_extract.interventions.editing import Redraw
    from manigeo_extract.models import build_model

    checkpoint = load_checkpoint(initial.path)
    arch, args = run.arch
    build = None if arch is None else (lambda seed: build_model(arch, args, seed=seed))
    return Redraw(run.model, dict(checkpoint.state_dict), build)


@dataclass(frozen=True)
class Plan:
    """In words, and how long it takes one process."""

    text: str
    seconds: float

    def jobs(self, most: int, device: str) -> int:
        """How many processes it is worth: another one takes some seconds to begin, and a GPU has one user."""
        return most if self.seconds > _WORTH_PROCESSES and device == "cpu" else 1


def describe_plan(
    run: "Run", groups: "Sequence[Group]", to: Sequence[Any], laboratory: "Laboratory", n: int, more: Sequence[str] = ()
) -> Plan:
    """What is exchanged for what, how many networks that makes, and about how long they take."""
    before = time.monotonic()
    laboratory.examiner.answers(run.model)
    seconds = (time.monotonic() - before) * n
    targets = ", ".join(t if isinstance(t, str) else f"{t.name} (epoch {t.epoch})" for t in to)
    kinds = ", ".join(f"{kind} {laboratory.examiner.n(kind)}" for kind in laboratory.examiner.kinds)
    network = f"{run.place['run']}/{run.place['checkpoint']} (epoch {run.place['epoch']})"
    text = (
        f"{network}: {len(groups)} layers, set to {targets}\n"
        f"{n} networks on {kinds} examples: about {max(seconds, 1):.0f} s on one core"
        + (f"; then {', '.join(name.replace('_', ' ') for name in more)}" if more else "")
    )
    return Plan(text, seconds)


def _carried_out(
    bench: Bench,
    todo: "Sequence[Intervention]",
    out: Path,
    earlier: "pd.DataFrame | None",
    jobs: int,
    cluster: str | None,
    more: "Mapping[str, Callable[[], Rows]] | None" = None,
) -> "pd.DataFrame":
    """The interventions, then the studies; what an earlier table holds is not done again."""
    from manigeo.cli.studies import study_part
    from manigeo.results import Part, bare_settings, with_settings

    laboratory = open_laboratory(bench)
    done = set() if earlier is None else set(zip(earlier["layer"], earlier["settings"].map(bare_settings), strict=True))
    if earlier is not None and set(earlier["fingerprint"]) - {laboratory.run.place["fingerprint"]}:
        raise InputError(f"{out} is of another network than {laboratory.run.directory}: give another --out, or --force")
    studied = set() if earlier is None else set(with_settings(earlier, "analysis")["analysis"])
    common = dict(laboratory.settings or {})
    remaining = laboratory.todo(todo, done)
    studies = (
        Part(number, study_part(laboratory.run, name, rows(), common))
        for number, (name, rows) in enumerate((more or {}).items(), len(remaining))
        if name not in studied
    )
    return collected(itertools.chain(_interventions(bench, remaining, jobs, cluster), studies), out, earlier)


def _interventions(
    bench: Bench, todo: "Sequence[Intervention | None]", jobs: int, cluster: str | None
) -> Iterator["Part"]:
    from tqdm import tqdm

    from manigeo.results import Part

    with (
        open_workers(jobs, cluster) as workers,
        tqdm(total=len(todo), desc=bench.analysis, unit="network", disable=None) as bar,
    ):
        for number, table in workers.as_completed(intervened, [(bench, at) for at in todo]):
            bar.update()
            yield Part(number, table)


def _tell(table: "pd.DataFrame", report: str, out: Path, as_json: bool) -> None:
    from manigeo.results import as_json as to_json

    click.echo(to_json(table) if as_json else report)
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)
