"""Requests for networks, data, labels and devices: what is asked for, in frozen values.

The command line, Python and worker processes share them; what is not asked for is taken from the checkpoint. Fields have the
names of the options of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from manigeo_extract.data.datasets import Permutation
from manigeo_extract.data.noise import MATRIX, read_matrix
from manigeo_extract.training.plan import TrainingPlan

R = TypeVar("R")


@dataclass(frozen=True)
class NetworkRequest:
    """Name and arguments of the network. The arguments go over those that the checkpoint has of a network of this name. With
    ``drop_tied`` the channels that were tied to single examples are off."""

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    drop_tied: bool = False


@dataclass(frozen=True)
class WeightsRequest:
    """The weights of a checkpoint, read as :func:`~manigeo_extract.files.checkpoints.load_checkpoint` does, or "init":
    those of the network before training. With ``no_strict`` what fits of them is taken."""

    weights: str = "checkpoint"
    state_key: str | None = None
    ema: bool = False
    trust: bool = False
    no_strict: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """Options of :func:`~manigeo_extract.files.checkpoints.load_checkpoint`."""
        return {"state_key": self.state_key, "ema": self.ema, "trust": self.trust}


@dataclass(frozen=True)
class DataRequest:
    """Data set and its arguments. The arguments go over those that the checkpoint has of data of the same source."""

    data: str | None = None
    data_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelsRequest:
    """The labels of training: a permutation, each part of it as in the checkpoint unless given, or a CSV file; and the file
    that marks memorized and typical examples (:mod:`manigeo.per_example.marking`), if they are to be kinds.

    A ``convention`` that ends in ``.csv`` is a file with a matrix of transitions
    (:func:`~manigeo_extract.data.noise.read_matrix`), which states the noise of all training labels unless ``permute`` says
    of how many.
    """

    permute: float | None = None
    convention: str | None = None
    permute_seed: int | None = None
    labels: Path | None = None
    kinds_from: Path | None = None

    def permutation(self, default: Mapping[str, Any] | None) -> Permutation:
        """The permutation asked for; what is not given is as in ``default``.

        Raises :class:`~manigeo.errors.InputError` for a file that holds no matrix.
        """
        asked: dict[str, Any] = {"fraction": self.permute, "seed": self.permute_seed, "convention": self.convention}
        if self.convention is not None and self.convention.endswith(".csv"):
            share = 1 if self.permute is None else self.permute
            asked |= {"convention": MATRIX, "matrix": read_matrix(self.convention), "fraction": share}
        elif self.convention is not None:
            default = {name: value for name, value in (default or {}).items() if name != "matrix"}
        return Permutation(
            **(dict(default or {}) | {name: value for name, value in asked.items() if value is not None})
        )

    @property
    def asks_to_permute(self) -> bool:
        return (self.permute, self.convention, self.permute_seed) != (None, None, None)


@dataclass(frozen=True)
class ModelRequest:
    """A network with its weights, its data and their labels; ``seed`` is for weights of which no other seed is known."""

    network: NetworkRequest = field(default_factory=NetworkRequest)
    weights: WeightsRequest = field(default_factory=WeightsRequest)
    data: DataRequest = field(default_factory=DataRequest)
    labels: LabelsRequest = field(default_factory=LabelsRequest)
    seed: int = 0


@dataclass(frozen=True)
class ExtractionRequest:
    """Request for an extraction, see :func:`~manigeo_extract.recording.extraction.plan_extraction`; with the
    ``backend`` "fx" functions are layers, too."""

    model: ModelRequest = field(default_factory=ModelRequest)
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layers_regex: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    readout: str | None = None
    backend: str = "hooks"
    batch_axis: Mapping[str, int] = field(default_factory=dict)
    per_class: int = 50
    project: int | None = None
    dtype: str = "float32"
    manifolds: str = "label"
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunRequest:
    """The trained network of a run (the checkpoint ``at``) on its ``device``, and what of it is looked at: layers as
    ``group_by`` names, and at most ``most`` examples of a kind, drawn by the seed of the model. ``near_guessing`` takes the
    place of the run's own limit of what is before memorization."""

    model: ModelRequest = field(default_factory=ModelRequest)
    at: str | int = "last"
    layers: tuple[str, ...] = ()
    group_by: str = "module"
    most: int | None = None
    batch_size: int = 256
    device: str = "cpu"
    near_guessing: float | None = None


@dataclass(frozen=True)
class TrainingRequest:
    """A network to train by ``plan``, on data and labels of ``model``; with a ``source``, from the weights of that file."""

    model: ModelRequest = field(default_factory=ModelRequest)
    plan: TrainingPlan = field(default_factory=TrainingPlan)
    source: Path | None = None


@dataclass(frozen=True)
class LaboratoryRequest:
    """A run and how layers are exchanged in it, see :class:`~manigeo_extract.interventions.exchanges.Laboratory`.

    It is known by its ``occasion`` alone: another one opens the run anew, since files change between two commands.
    """

    occasion: str
    directory: Path = field(compare=False)
    run: RunRequest = field(compare=False)
    analysis: str = field(compare=False)
    batch_norm: str = field(compare=False, default="with-stats")
    threshold: float | None = field(compare=False, default=None)
    draws: int = field(compare=False, default=0)
    retrain_steps: int = field(compare=False, default=0)
    retrain_lr: float = field(compare=False, default=0.02)


@dataclass(frozen=True)
class SurveyRequest:
    """A run and what is measured of its gradients, see :func:`~manigeo_extract.gradients.tables.plan_survey`; known by its
    ``occasion`` alone, as a :class:`LaboratoryRequest` is."""

    occasion: str
    directory: Path = field(compare=False)
    run: RunRequest = field(compare=False)
    checkpoints: tuple[str, ...] = field(compare=False, default=("all",))
    kinds: tuple[str, ...] = field(compare=False, default=())
    sizes: tuple[int, ...] = field(compare=False, default=())
    sizes_at: str = field(compare=False, default="init")
    repetitions: int = field(compare=False, default=5)


@dataclass(frozen=True)
class ChannelsRequest:
    """A run and the channels that are removed from it, see
    :class:`~manigeo_extract.interventions.flip_tables.ChannelStudy`; known by its ``occasion`` alone, as a
    :class:`LaboratoryRequest` is."""

    occasion: str
    directory: Path = field(compare=False)
    run: RunRequest = field(compare=False)
    kinds: tuple[str, ...] = field(compare=False, default=())
    max_channels: int = field(compare=False, default=50)
    reference: int = field(compare=False, default=64)
    controls: int = field(compare=False, default=5)


def requested(kind: type[R], options: Mapping[str, Any]) -> R:
    """The request of this kind, made of the options that its fields, and those of the requests within it, are named after.

    >>> requested(ModelRequest, {"arch": "mlp", "data": "digits", "seed": 3, "out": "acts.h5"}).network.arch
    'mlp'
    """
    given: dict[str, Any] = {}
    for part in fields(kind):  # type: ignore[arg-type]
        if is_dataclass(nested := part.default_factory):
            given[part.name] = requested(nested, options)
        elif part.name in options:
            given[part.name] = options[part.name]
    return kind(**given)
