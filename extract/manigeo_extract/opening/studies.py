"""Runs opened from requests, and what is studied of their networks: exchanges of layers, gradients, channels.

A study is opened once in each process, for all of its tasks; a worker is given the request and a task.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from manigeo.errors import UsageError
from manigeo_extract.devices import check_device
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.gradients.tables import Survey, Sweep, Task, plan_survey
from manigeo_extract.interventions.channels import find_channels
from manigeo_extract.interventions.editing import Redraw
from manigeo_extract.interventions.exchanges import Intervention, Laboratory
from manigeo_extract.interventions.flip_tables import ChannelStudy
from manigeo_extract.interventions.flipping import FlipPlan
from manigeo_extract.interventions.groups import Group, group_layers, select_groups
from manigeo_extract.interventions.retraining import RetrainPlan
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import build_model
from manigeo_extract.opening.networks import Tell, open_data, open_network, silent
from manigeo_extract.opening.requests import ChannelsRequest, LaboratoryRequest, RunRequest, SurveyRequest
from manigeo_extract.training.runs import Run, Snapshot, find_snapshot, place_of, run_snapshots

R = TypeVar("R")


def open_run(directory: Path, request: RunRequest, tell: Tell = silent) -> Run:
    """The trained network of a run on its device, its data, and its checkpoints."""
    device = check_device(request.device)
    weights = request.model.weights
    snapshots = run_snapshots(directory, weights.reading, loosely=weights.no_strict)
    checkpoint = load_checkpoint(find_snapshot(snapshots, request.at, directory).path, **weights.reading)
    data, examples = open_data(checkpoint, request.model.data, request.model.labels, tell)
    opened = open_network(checkpoint, data, request.model, tell)
    arch = (opened.arch, opened.arch_args)
    place, module = place_of(checkpoint), opened.module.to(device)
    return Run(directory, arch, module, data, examples, place, snapshots, request.near_guessing)


def open_groups(run: Run, request: RunRequest) -> list[Group]:
    """All layers of the network, by execution; see :func:`~manigeo_extract.interventions.groups.select_groups`."""
    return group_layers(run.model, run.data.inputs([0, 1]), request.group_by)


_OPEN: dict[Any, Any] = {}  # the last one


def _opened_once(request: R, opener: Callable[[R, Tell], Any], tell: Tell) -> Any:
    """Open what a request names, once in each process."""
    if request not in _OPEN:
        _OPEN.clear()  # before the next is opened: two may not fit into memory
        _OPEN[request] = opener(request, tell)
    return _OPEN[request]


def open_laboratory(request: LaboratoryRequest, tell: Tell = silent) -> Laboratory:
    """The network and its examples: opened once by each process, for all interventions."""
    found: Laboratory = _opened_once(request, _laboratory, tell)
    return found


def open_survey(request: SurveyRequest, tell: Tell = silent) -> Survey:
    """The network and what is measured of its gradients: opened once by each process."""
    found: Survey = _opened_once(request, _survey, tell)
    return found


def surveyed(request: SurveyRequest, task: Task) -> pd.DataFrame:
    """The task of a worker: the rows of one checkpoint, or of the sweep."""
    return open_survey(request).table(task)


def open_channels(request: ChannelsRequest, tell: Tell = silent) -> ChannelStudy:
    """The network and the channels that are removed from it: opened once by each process."""
    found: ChannelStudy = _opened_once(request, _channel_study, tell)
    return found


def flipped(request: ChannelsRequest, kind: str) -> pd.DataFrame:
    """The task of a worker: the rows of one kind."""
    return open_channels(request).table(kind)


def flipped_apart(request: ChannelsRequest, kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The task of a worker: the rows of one kind, and those of its single examples."""
    return open_channels(request).tables(kind)


def _channel_study(request: ChannelsRequest, tell: Tell) -> ChannelStudy:
    asked = request.run
    run = open_run(request.directory, asked, tell)
    groups = open_groups(run, asked)
    chosen = {group.name for group in select_groups(groups, asked.layers)}
    channels = [of for of in find_channels(run.model, groups) if of.layer in chosen]
    if not channels:
        raise UsageError(f"the layers {', '.join(asked.layers)} have no channels that could be removed: name others")
    kinds = request.kinds or tuple(kind for kind in (run.memorized, run.trained_kinds[0]) if kind)
    plan = FlipPlan(request.max_channels, request.reference, request.controls, asked.model.seed)
    settings = {"group_by": asked.group_by, "layers": list(asked.layers)}
    return ChannelStudy(run, channels, kinds, asked.most, plan, asked.batch_size, settings)


def _survey(request: SurveyRequest, tell: Tell) -> Survey:
    asked = request.run
    run = open_run(request.directory, asked, tell)
    groups = select_groups(open_groups(run, asked), asked.layers)
    sizes = tuple(sorted(set(request.sizes)))
    sweep = Sweep(run.snapshot(request.sizes_at), sizes, request.repetitions) if sizes else None
    settings = {"group_by": asked.group_by, "layers": list(asked.layers), "most": asked.most}
    return plan_survey(
        run, groups, run.select(request.checkpoints), request.kinds, sweep, asked.most, asked.batch_size, asked.model.seed,
        settings,
    )  # fmt: skip


def _laboratory(request: LaboratoryRequest, tell: Tell) -> Laboratory:
    asked, seed = request.run, request.run.model.seed
    run = open_run(request.directory, asked, tell)
    redraw = _redraw(run, run.snapshot("init")) if request.analysis == "reinit" else None
    examiner = Examiner(run.data, run.examples, asked.device, asked.batch_size, most=asked.most, seed=seed)
    return Laboratory(
        run, examiner, request.analysis, request.batch_norm, request.threshold, redraw, request.draws, seed,
        {"group_by": asked.group_by, "examples": asked.most},
        RetrainPlan(steps=request.retrain_steps, lr=request.retrain_lr, seed=seed),
    )  # fmt: skip


def intervened(request: LaboratoryRequest, at: Intervention | None) -> pd.DataFrame:
    """The task of a worker: the rows of one intervention."""
    return open_laboratory(request).table(at)


def _redraw(run: Run, initial: Snapshot) -> Redraw:
    """Choose how layers are drawn again: by themselves, or with the whole network where its construction is known."""
    arch, args = run.arch
    build = None if arch is None else (lambda seed: build_model(arch, args, seed=seed))
    return Redraw(run.model, initial.state(run.model), build)
