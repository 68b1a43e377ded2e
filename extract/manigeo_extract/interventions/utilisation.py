r"""Utilisation of the examples by the layers up to each: the network cut there, with a linear classifier on top.

Wang & Yang (2022) ask which layers a network uses to generalize and which to memorize. The prefix curve keeps the layers
up to l as they are and puts multinomial logistic regression in the place of the others, trained as the network was: on
the training examples with the labels of training, permuted ones included. Beside it stand the input itself (l = 0) and
the network. The paper leaves the protocol open; this one is our own.

Features are standardised and the penalty grows with their number, so that one grid of C serves all layers; C is the most
accurate on validation data where there are some, which are clean. A probe so chosen does not memorize by itself what the
layers do not offer: its accuracy on permuted examples rises where these are linearly separable at little cost.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from torch import nn

from manigeo.errors import check_ranges
from manigeo.faces.progress import track
from manigeo.kinds import MARKED, TRAINED, VALIDATION
from manigeo.manifolds import standard_error
from manigeo.randomness import stream
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.scoring import Examiner, Row
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import Layer, list_layers
from manigeo_extract.recording.readouts import with_readout
from manigeo_extract.training.runs import Run

INPUT, NETWORK = "input", "(none)"
TRAINING = ("unpermuted", "permuted", "restored", *MARKED)


@dataclass(frozen=True)
class Labelled:
    """Positions of examples among those looked at, and the labels that they are fitted or scored by."""

    at: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]


Members = Mapping[str, Labelled]


@dataclass(frozen=True)
class ProbePlan:
    """Settings of how the layers are read and the probes fitted.

    ``most`` training examples, drawn by ``seed``, are fitted; ``Cs`` are tried where there are validation examples, else
    ``C`` is taken; ``max_iter`` steps of L-BFGS at most. Outputs of more than ``largest`` features are averaged over
    their positions or tokens.
    """

    most: int | None = 10_000
    Cs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    C: float = 1.0
    max_iter: int = 500
    largest: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            ("most", self.most is None or self.most >= 2, "2 or more"),
            ("Cs", len(self.Cs) >= 1 and all(0 < C < math.inf for C in self.Cs), "one or more numbers above 0"),
            ("C", 0 < self.C < math.inf, "above 0"),
            ("max_iter", self.max_iter >= 1, "1 or more"),
            ("largest", self.largest >= 1, "1 or more"),
        )


def prefix_curve(
    run: Run, examiner: Examiner, groups: Sequence[Group], plan: ProbePlan, *, progress: bool = False
) -> Iterator[Row]:
    """``prefix_accuracy`` on every kind of a probe on the input, and after each of ``groups``; the network's ``accuracy``.

    Of unpermuted, permuted and restored examples, those that were fitted count; ``prefix_accuracy_heldout`` is on the
    others, if ``most`` leaves any. The layer after which a group is read is its last module. ``flag`` is "not_converged"
    where L-BFGS did not end, and with NaN "not_recorded" where a group has no output of its own with a row for each
    example, and "one_class" where there is nothing to tell apart. ``settings`` hold C, features and readout.
    """
    members = {kind: Labelled(*examiner.members(kind)) for kind in examiner.kinds}
    fitted = _fitted(run, examiner, plan)
    layers = list_layers(run.model, run.data.inputs([0, 1]))
    read = [(INPUT, 0, layer) for layer in layers if layer.module_class == "Input"]  # texts have none
    prefixes = [*read, *((group.name, i, _last_output(group, layers)) for i, group in enumerate(groups, start=1))]
    for name, depth, layer in track(prefixes, "utilisation", "layer", progress):
        place = {"layer": name, "depth": depth}
        yield from (place | row for row in _probe_rows(run.model, examiner, layer, members, fitted, plan))
    place = {"layer": NETWORK, "depth": len(groups) + 1, "settings": {}}
    scores = examiner.rows_of(examiner.answers(run.model))
    yield from (place | row for row in scores if row["metric"] == "accuracy")


# -------------------------------------------------------------------------------------------------------------- examples
def _fitted(run: Run, examiner: Examiner, plan: ProbePlan) -> Labelled:
    """Training examples, by the labels of training."""
    looked_at = run.examples.iloc[examiner.rows]
    rows = np.flatnonzero(looked_at["split"].isin(TRAINED))
    if plan.most is not None and plan.most < len(rows):
        rows = np.sort(stream(plan.seed).choice(rows, plan.most, replace=False))
    return Labelled(rows, looked_at["train_label"].to_numpy(dtype=np.int64)[rows])


# ------------------------------------------------------------------------------------------------------------- the layers
def _last_output(group: Group, layers: Sequence[Layer]) -> Layer | None:
    """The last call of the group's last module, or of what that lies in if the network does not call it by itself."""
    path = group.modules[-1]
    while path:
        calls = [layer for layer in layers if layer.path == path and layer.batched and layer.module_class != "Input"]
        if calls:
            return calls[-1]
        path = path.rpartition(".")[0]
    return None


def features(
    model: nn.Module, examiner: Examiner, layer: Layer, largest: int
) -> tuple[Float32[np.ndarray, "n features"], str]:
    """Compute what the layer returns for every example looked at, with the name of the readout."""
    read = with_readout([layer], "mean")[0] if layer.n_features > largest and len(layer.feature_shape) > 1 else layer
    with record_layers(model, [read]) as forward:
        parts = [forward(batch)[read.name].flatten(1).numpy() for batch in examiner.batches()]
    return np.concatenate(parts), read.readout


# ------------------------------------------------------------------------------------------------------------- the probes
def fit_probe(
    X: Float[np.ndarray, "n features"], y: Int[np.ndarray, " n"], C: float, max_iter: int = 500
) -> tuple[Any, bool]:
    r"""Multinomial logistic regression on standardised features, a pipeline of scikit-learn, and whether the solver ended.

    .. math:: \min_{W, b}\; \frac{d}{2} |W|^2 + C \sum_i \Big(\log \sum_c e^{f_c(z_i)} - f_{y_i}(z_i)\Big), \qquad
              f_c(z) = w_c \cdot z + b_c, \quad z = (x - m) / s

    with mean m and standard deviation s of each of the d features.

    >>> probe, ended = fit_probe(np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0, 0, 1, 1]), C=1.0)
    >>> probe.predict(np.array([[-3.0], [3.0]])).tolist(), ended
    ([0, 1], True)
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import, and few interventions need it
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=C / X.shape[1], max_iter=max_iter))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(X, y)
    return probe, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _probe_rows(
    model: nn.Module,
    examiner: Examiner,
    layer: Layer | None,
    members: Members,
    fitted: Labelled,
    plan: ProbePlan,
) -> Iterator[Row]:
    flag = "not_recorded" if layer is None else "one_class" if len(np.unique(fitted.labels)) < 2 else ""
    if flag:
        nothing = {"metric": "prefix_accuracy", "value": math.nan, "flag": flag, "settings": {}}
        yield from ({"kind": kind} | nothing for kind in members)
        return
    assert layer is not None
    X, readout = features(model, examiner, layer, plan.largest)
    C, probe, ended = _chosen(X, fitted, members.get(VALIDATION), plan)
    predicted = probe.predict(X)
    settings = _settings(plan, C, X.shape[1], readout, layer.name, len(fitted.at), VALIDATION in members)
    for row in _accuracies(predicted, fitted, members):
        yield row | {"flag": "" if ended else "not_converged", "settings": settings}


def _chosen(
    X: Float[np.ndarray, "n features"], fitted: Labelled, validation: Labelled | None, plan: ProbePlan
) -> tuple[float, Any, bool]:
    """C with its probe: the most accurate on validation data, of equals the strongest regularisation."""
    Cs = [plan.C] if validation is None else sorted(plan.Cs)
    tried = [(C, *fit_probe(X[fitted.at], fitted.labels, C, plan.max_iter)) for C in Cs]
    if validation is None:
        return tried[0]
    Z = X[validation.at]
    return max(tried, key=lambda one: float((one[1].predict(Z) == validation.labels).mean()))


def _accuracies(predicted: Int[np.ndarray, " n"], fitted: Labelled, members: Members) -> Iterator[dict[str, Any]]:
    for kind, of_kind in members.items():
        hits = (predicted[of_kind.at] == of_kind.labels).astype(np.float64)
        seen = np.isin(of_kind.at, fitted.at)
        if kind in TRAINING and not seen.all():
            yield {"kind": kind, "metric": "prefix_accuracy_heldout"} | _mean(hits[~seen])
            hits = hits[seen]
        if len(hits):
            yield {"kind": kind, "metric": "prefix_accuracy"} | _mean(hits)


def _mean(hits: Float[np.ndarray, " n"]) -> Row:
    return {"value": float(hits.mean()), "stderr": standard_error(hits), "n": len(hits)}


def _settings(
    plan: ProbePlan, C: float, n_features: int, readout: str, layer: str, n_fitted: int, chosen: bool
) -> dict[str, Any]:
    return {
        "C": C,
        "C_by": "validation" if chosen else "default",
        "n_fitted": n_fitted,
        "features": n_features,
        "readout": readout,
        "read_at": layer,
        "seed": plan.seed,
    }
