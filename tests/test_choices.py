"""A name that is none of the choices is refused where it is given, and never taken for another."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import manigeo
from manigeo.errors import UsageError
from manigeo.layerwise.geometry import Joint, MeanField, Sweep
from manigeo_extract.interventions.criticality import Learned
from manigeo_extract.interventions.editing import taken_from
from manigeo_extract.interventions.exchanges import Intervention, sweep_layers
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.resetting import ResetPlan
from manigeo_extract.interventions.retraining import reset_copy
from manigeo_extract.weights.comparing import correlation_table, generalization_gap


class Empty:
    def inputs(self, rows):
        return torch.zeros(len(rows), 2)


LAYER = Group("h1", 0, ("0",), ("0.weight", "0.bias"))
NET = nn.Sequential(nn.Linear(2, 2))
METRICS = pd.DataFrame({"epoch": [1, 1], "kind": ["test", "unpermuted"], "accuracy": [0.5, 1.0], "n": [2, 2]})
POINTS = [np.eye(4), 2 * np.eye(4)]

REFUSED = {
    "to": (lambda: Intervention("each", (LAYER,), "initt"), r"fresh draw, zero; got 'initt'"),
    "sweep": (
        lambda: Intervention("eech", (LAYER,), "zero"),
        r"last, prefix, set, pair, whole; got 'eech'",
    ),
    "sweep of layers": (
        lambda: sweep_layers([LAYER], "whole"),
        r"each, last, prefix, noise, retrain, pair; got 'whole'",
    ),
    "policy": (lambda: taken_from({}, LAYER, "param"), r"with-stats, params, recalibrate; got 'param'"),
    "policy of a reset": (lambda: reset_copy(NET, [LAYER], NET.state_dict(), "stats"), r"batch_norm .* got 'stats'"),
    "policy of a plan": (lambda: ResetPlan(batch_norm="recalibrate"), r"with-stats or params, got 'recalibrate'"),
    "gap": (lambda: generalization_gap(METRICS, "clear"), r"accuracy, clean, loss; got 'clear'"),
    "gap of runs": (lambda: correlation_table(["a"], gap="los"), r"accuracy, clean, loss; got 'los'"),
    "movement": (lambda: correlation_table(["a"], measure="turn"), r"rotation, .*; got 'turn'"),
    "sum": (
        lambda: list(Learned(NET, Empty(), torch.zeros(1, dtype=torch.int64)).sums("errors")),
        r"loss, error; got 'errors'",
    ),
    "centers": (lambda: MeanField(centers="ref"), r"auto, reference, keep; got 'ref'"),
    "centers of a sweep": (lambda: Sweep((2, 4), centers="ref"), r"auto, reference, keep; got 'ref'"),
    "errors": (lambda: MeanField(errors="jack"), r"auto, .*; got 'jack'"),
    "labels": (lambda: Joint(labels="ovr"), r"random, one_vs_rest; got 'ovr'"),
    "nan": (lambda: manigeo.joint_capacity(POINTS, nan="omit"), r"nan must be one of \('raise', 'drop'\), got 'omit'"),
    "solver": (lambda: manigeo.manifold_capacity(POINTS, solver="qp"), r"\['cvxpy', 'pivoting'\], got 'qp'"),
    "points": (lambda: manigeo.joint_capacity(POINTS, points="axis"), r"'axes'\), got 'random' and 'axis'"),
    "dimension": (lambda: manigeo.frame_geometry(np.eye(2) - 0.5, dimension="full"), r"\"ambient\", got 'full'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_name_that_is_none_of_the_choices_is_refused_with_all_of_them(what):
    wrong, said = REFUSED[what]
    with pytest.raises((UsageError, ValueError), match=said):
        wrong()


def test_an_intervention_exchanges_one_layer_or_more():
    with pytest.raises(UsageError, match="exchanges one layer or more, got none"):
        Intervention("set", (), "zero")
