"""Movement of each layer since the first of a run's checkpoints (measures: :mod:`manigeo.weights`)."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from manigeo.errors import InputError
from manigeo.faces.progress import track
from manigeo.results import as_table
from manigeo.weights import MEASURES, WeightChange, pooled_change, weight_change
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.recording.layers import unwrap
from manigeo_extract.training.runs import place_of, run_snapshots
from manigeo_extract.weights.kernels import acting_state, left_out, module_kernels

PathLike = str | os.PathLike[str]


def run_checkpoints(run: PathLike, reading: Mapping[str, Any] | None = None) -> list[Path]:
    """The checkpoint files in a run's folder, by epoch, each epoch once: the initial, all that were kept, best and last.

    ``reading`` are options of :func:`~manigeo_extract.files.checkpoints.load_checkpoint`.

    Raises :class:`~manigeo.errors.InputError` where there are none.
    """
    by_epoch = {
        snapshot.epoch: snapshot.path for snapshot in reversed(run_snapshots(run, reading))
    }  # of equals the first
    return list(reversed(by_epoch.values()))


def weight_table(
    paths: Sequence[PathLike],
    *,
    reading: Mapping[str, Any] | None = None,
    strict: bool = True,
    progress: bool = False,
    tell: Callable[[str], None] = lambda said: None,
) -> pd.DataFrame:
    """Measure how far the kernels of every module have moved, from the first of ``paths`` to each, as a results table.

    Rows of a layer are the :data:`~manigeo.weights.MEASURES`, ``weights`` (how many there are), and ``step_angle``, the
    angle in radians from the checkpoint before (not of the first). The layers ``(all)`` and ``(last k)`` are those
    layers as one vector, and so are the kernels of a module that has several (a recurrent or an attention layer).

    ``reading`` are options of :func:`~manigeo_extract.files.checkpoints.load_checkpoint`; ``tell`` hears which modules have
    no kernels. Unless ``strict``, kernels that are not in all files, or not of one shape, are left out.

    Raises :class:`~manigeo.errors.InputError` for one checkpoint alone, and for checkpoints of different networks.
    """
    if len(paths) < 2:
        raise InputError(
            f"one checkpoint has not moved: give {paths[0] if paths else 'a run'} and a later one, or a run"
        )
    rows: list[dict[str, Any]] = []
    options = reading or {}
    for said in _notes(load_checkpoint(paths[0], **options).state_dict):
        tell(said)
    start = _read(paths[0], options)
    if not strict:
        start = _common(start, [_read(path, options) for path in paths[1:]], tell)
    previous = start
    for path in track(paths, "weights", "checkpoint", progress):
        now = start if path == paths[0] else _read(path, options)
        if not strict:
            now = now._replace(kernels={name: now.kernels[name] for name in start.kernels})
        _check_same(start, now)
        rows += _rows(start, previous, now)
        previous = now
    return as_table(rows)


class WeightMonitor:
    """Monitor of how far every kernel of a network moves in a training loop of one's own, without checkpoints.

    >>> model = torch.nn.Linear(3, 2)
    >>> monitor = WeightMonitor(model)
    >>> with torch.no_grad():  # training
    ...     _ = model.weight.neg_()
    >>> monitor.record(1)
    >>> table = monitor.table
    >>> table[(table["metric"] == "rotation") & (table["layer"] == "(all)")]["value"].round(9).tolist()
    [0.0, 2.0]

    The weights at the start, recorded as epoch 0, and those of the last record stay in memory. ``epoch`` is any number
    that rises, such as 2.5; ``table`` is that of :func:`weight_table`, for ``manigeo plot``. Raises
    :class:`~manigeo.errors.InputError` for a network without weights of layers.
    """

    def __init__(self, model: torch.nn.Module, run: str = "") -> None:
        self._model, self._run = unwrap(model), run
        self._start = self._previous = self._now(0)
        self._rows = list(_rows(self._start, self._start, self._start))

    def record(self, epoch: float) -> None:
        """Measure the weights as they are."""
        now = self._now(epoch)
        self._rows += _rows(self._start, self._previous, now)
        self._previous = now

    @property
    def table(self) -> pd.DataFrame:
        return as_table(self._rows)

    @property
    def left_out(self) -> dict[str, str]:
        """Modules whose weights are not measured, and why: they have scales and shifts alone, or other names."""
        return left_out(acting_state(self._model))

    def _now(self, epoch: float) -> "_State":
        kernels = {name: w.copy() for name, w in _kernels(acting_state(self._model), "the network").items()}
        return _State({"run": self._run, "epoch": epoch}, "start", kernels)


class _State(NamedTuple):
    """Kernels by (module, name), the columns of the table that tell when they were taken, and the name of their source."""

    place: Mapping[str, Any]
    source: str
    kernels: Mapping[tuple[str, str], np.ndarray]


def _read(path: PathLike, reading: Mapping[str, Any]) -> _State:
    checkpoint = load_checkpoint(path, **reading)
    return _State(place_of(checkpoint), str(path), _kernels(checkpoint.state_dict, str(path)))


def _kernels(state: Mapping[str, Any], source: str) -> dict[tuple[str, str], np.ndarray]:
    found = module_kernels(state, source)
    return {(module, name): _as_array(tensor) for module, of in found.items() for name, tensor in of.items()}


def _notes(state: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on the weights that are not looked at, one for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, why in left_out(state).items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        yield f"left out, since it {why}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def _common(start: _State, later: Sequence[_State], tell: Callable[[str], None]) -> _State:
    """The kernels of one name and shape in all checkpoints."""
    common = {
        name: w
        for name, w in start.kernels.items()
        if all(name in state.kernels and state.kernels[name].shape == w.shape for state in later)
    }
    dropped = [_named(name) for state in (start, *later) for name in state.kernels if name not in common]
    if not common:
        raise InputError(
            f"{start.source} and {later[-1].source} have no kernel in common; give checkpoints of one network"
        )
    if dropped:
        tell(f"left out, since not all checkpoints have them in one shape: {', '.join(dict.fromkeys(dropped))}")
    return start._replace(kernels=common)


def _named(kernel: tuple[str, str]) -> str:
    return ".".join(kernel)


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    """NumPy has no bfloat16, and nothing of other devices."""
    tensor = tensor.detach().cpu()
    return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).numpy()


def _check_same(start: _State, now: _State) -> None:
    shapes, others = ({name: w.shape for name, w in state.kernels.items()} for state in (start, now))
    different = [name for name in dict.fromkeys([*shapes, *others]) if shapes.get(name) != others.get(name)]
    if different:
        listed = ", ".join(f"{_named(name)} ({shapes.get(name)}, {others.get(name)})" for name in different[:5])
        raise InputError(
            f"{start.source} and {now.source} are not of one network: {listed}"
            + (f" and {len(different) - 5} more" if len(different) > 5 else "")
            + "; give checkpoints of one training, or --no-strict for what they have in common"
        )


def _rows(start: _State, previous: _State, now: _State) -> Iterator[dict[str, Any]]:
    settings = json.dumps({"analysis": "weights", "start": Path(start.source).name})
    since, step = _changes(start, now), _changes(previous, now)
    for depth, (layer, change) in enumerate(since.items()):
        measures = {name: getattr(change, name) for name in MEASURES} | {"weights": change.n}
        if now is not start:
            measures["step_angle"] = step[layer].angle
        place = {**now.place, "layer": layer, "depth": depth, "settings": settings, "flag": change.flag}
        for metric, value in measures.items():
            yield place | {"metric": metric, "value": value}


def _changes(start: _State, end: _State) -> dict[str, WeightChange]:
    """Changes of every layer, and of the last layers together."""
    of_modules: dict[str, list[WeightChange]] = {}
    for name, w in start.kernels.items():
        of_modules.setdefault(name[0], []).append(weight_change(w, end.kernels[name]))
    layers = {
        module: changes[0] if len(changes) == 1 else pooled_change(changes) for module, changes in of_modules.items()
    }
    each = list(layers.values())
    last = {f"(last {k})": pooled_change(each[-k:]) for k in range(2, len(each))}
    return layers | last | {"(all)": pooled_change(each)}
