"""Module criticality: a bowl has that of the closed form, a flat layer none, and the search finds what the grid has."""

import copy
import hashlib
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from manigeo.errors import UsageError
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import save_checkpoint
from manigeo_extract.interventions.criticality import (
    CriticalityPlan,
    Learned,
    Segment,
    criticality_rows,
    module_criticality,
)
from manigeo_extract.interventions.groups import Group, group_layers
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.training.runs import Run, run_snapshots
from tests.effects import assert_effect, share_error, shifted

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("one_thread")]

PAPER = {"delta": None, "error": None}  # the bound of the authors' code alone


class Rows:
    def __init__(self, X: Tensor) -> None:
        self.X = X

    def inputs(self, rows: Any) -> Tensor:
        return self.X[torch.as_tensor(rows)]


class Bowl(nn.Module):
    r"""Of two classes the first has the loss :math:`c + |\theta - \theta^*|^2 / 2`, whatever the input."""

    def __init__(self, bottom: Tensor, c: float) -> None:
        super().__init__()
        self.theta, self.bottom, self.c = nn.Parameter(bottom.clone()), bottom, c

    def forward(self, x: Tensor) -> Tensor:
        loss = self.c + (self.theta - self.bottom).square().sum() / 2
        logits = torch.stack([torch.zeros_like(loss), torch.expm1(loss).log()])  # log(1 + e^z) = loss
        return logits.expand(len(x), 2)


def bowl(d: int, distance: float, c: float = 1.0) -> tuple[Segment, Learned]:
    bottom = torch.randn(d, generator=torch.Generator().manual_seed(1))
    model = Bowl(bottom, c)
    start = bottom + distance * torch.eye(1, d)[0]
    segment = Segment(model, Group("theta", 0, ("",), ("theta",)), {"theta": start})
    return segment, Learned(model, Rows(torch.zeros(3, 1)), torch.zeros(3, dtype=torch.int64))


# --------------------------------------------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("r", [0.2, 0.5, 0.9])
def test_a_bowl_has_the_criticality_of_the_closed_form(r: float) -> None:
    """At a distance D from the bottom of a bowl of d dimensions, with R the distance at which the loss is at its bound,

    (1 - alpha)^2 D^2 + d sigma^2 <= R^2, so that alpha = 1 - r^2 and mu = d (1 - r^2) / r^2 with r = R / D.
    """
    d, distance, c = 2000, 2.0, 1.0
    factor = 1 + (r * distance) ** 2 / (2 * c)
    plan = CriticalityPlan(factor=factor, n_alphas=201, per_decade=100, **PAPER)
    segment, learned = bowl(d, distance, c)
    found = module_criticality(segment, learned, factor * c * learned.n, "loss", plan)
    # sigma is up to 10^.01 below the best; the mean |u|^2 of five pairs is known to sqrt(2 / 5d) = 1.4 %
    assert found.value == pytest.approx(d * (1 - r**2) / r**2, rel=0.048 + 3 * 0.0141)
    # near its minimum the criticality is flat, so that alpha is known to the root of that
    assert found.alpha == pytest.approx(1 - r**2, abs=0.1)
    assert found.level <= factor * c


def test_without_a_way_back_only_the_noise_counts() -> None:
    """Of the alphas 0 and 1, with the start out of reach: d sigma^2 <= R^2, and mu = d D^2 / R^2."""
    d, distance = 2000, 2.0
    segment, learned = bowl(d, distance)
    plan = CriticalityPlan(factor=1.5, n_alphas=2, per_decade=100, **PAPER)
    found = module_criticality(segment, learned, 1.5 * learned.n, "loss", plan)
    assert found.alpha == 1
    assert found.value == pytest.approx(d * distance**2 / 1.0, rel=0.048 + 3 * 0.0141)  # R^2 = 2 x .5; as above


def test_the_standard_error_is_that_of_the_noise() -> None:
    d, n_draws = 50, 200
    segment, learned = bowl(d, 2.0)
    plan = CriticalityPlan(factor=2.0, n_draws=n_draws, **PAPER)
    found = module_criticality(segment, learned, 2.0 * learned.n, "loss", plan)
    # u and -u have one length: 100 values sigma^2 chi^2_d / 2, whose spread is known to 1 / sqrt(200)
    assert found.level_stderr == pytest.approx(found.sigma**2 * math.sqrt(d / 2) / 10, rel=4 / math.sqrt(200))


def test_where_the_start_is_within_the_bound_the_criticality_is_zero() -> None:
    segment, learned = bowl(d=50, distance=1.0)
    found = module_criticality(segment, learned, 1.6 * learned.n, "loss", CriticalityPlan(**PAPER))
    assert (found.value, found.alpha, found.n_tried) == (0, 0, 1)  # 1 + 1/2 is below 1.6


def test_a_grid_without_a_point_within_the_bound_says_so() -> None:
    segment, learned = bowl(d=50, distance=2.0)
    found = module_criticality(segment, learned, 1.01 * learned.n, "loss", CriticalityPlan(lowest=5.0, **PAPER))
    assert math.isnan(found.value)
    assert found.flag == "infeasible"


def test_a_criticality_at_the_end_of_the_grid_says_so() -> None:
    segment, learned = bowl(d=50, distance=2.0)
    found = module_criticality(segment, learned, 1.5 * learned.n, "loss", CriticalityPlan(highest=1e-3, **PAPER))
    assert found.flag == "at_edge"
    assert math.isfinite(found.value)


# -------------------------------------------------------------------------------------------------- on a trained network
class Network(nn.Module):
    """Batch norm, a kernel that two modules share, and a branch that is multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 24), nn.BatchNorm1d(24)
        self.second, self.again = nn.Linear(24, 24), nn.Linear(24, 24)
        self.again.weight = self.second.weight
        self.silent, self.last = nn.Linear(24, 10), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x.flatten(1))))
        x = torch.relu(self.again(torch.relu(self.second(x))))
        return self.last(x) + 0 * self.silent(x)


def trained(model: nn.Module, X: Tensor, y: Tensor, steps: int = 150) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()
    model.zero_grad()
    model.eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(shifted())
    model = Network()
    data = load_data("digits", {"per_class": 10})
    examples = permute_labels(data, Permutation(0.5))
    save_checkpoint(folder / "epoch-0000.pt", model, epoch=0)
    rows = np.flatnonzero(examples["split"] == "train")
    trained(model, data.inputs(rows), torch.as_tensor(examples["train_label"].to_numpy()[rows]))
    save_checkpoint(folder / "last.pt", model, epoch=150)
    place = {"run": "run", "checkpoint": "last", "epoch": 150, "fingerprint": ""}
    return Run(folder, (None, {}), model, data, examples, place, run_snapshots(folder))


def tables(run: Run, plan: CriticalityPlan) -> pd.DataFrame:
    groups = group_layers(run.model, run.data.inputs([0, 1]))
    return pd.DataFrame(list(criticality_rows(run, Examiner(run.data, run.examples, batch_size=32), groups, plan)))


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    return tables(run, CriticalityPlan())


def test_a_layer_that_is_multiplied_by_zero_has_criticality_zero(run: Run, table: pd.DataFrame) -> None:
    silent = table[table["layer"] == "silent"].set_index("metric")["value"]
    # Adam moves no weight whose gradient is zero; only the distance of nothing is the answer's own
    assert silent[["criticality", "criticality_absolute", "criticality_error"]].tolist() == [0, 0, 0]
    assert silent["criticality_alpha"] == 0
    segment, learned = segment_of(run, "last", run.snapshot("init").state(run.model)), learned_of(run)
    errors = whole_mean(segment, learned, 0.0, 0.0, "error", 1) / learned.n
    bound = sum(learned.sums("error")) / learned.n + 0.01
    assert_effect("errors with the last layer at init beyond the bound", errors - bound, share_error(errors, learned.n))
    needed = table[(table["layer"] == "last") & (table["metric"] == "criticality_error")]["value"].item()
    assert needed > 0


def test_a_flat_layer_that_has_moved_far_has_criticality_zero(run: Run) -> None:
    start = {name: tensor + 3 for name, tensor in run.model.state_dict().items()}
    segment, learned = segment_of(run, "silent", start), learned_of(run)
    found = module_criticality(segment, learned, 1.01 * sum(learned.sums("loss")), "loss", CriticalityPlan())
    assert segment.distance == pytest.approx(3 * math.sqrt(250), rel=1e-6)  # float32
    trained = torch.cat([tensor.flatten() for tensor in segment.trained.values()])
    assert segment.scales == pytest.approx((float(trained.square().mean().sqrt()), 3.0), rel=1e-6)
    assert (found.value, found.n_tried) == (0, 1)


def test_the_network_has_the_sum_of_its_layers(table: pd.DataFrame) -> None:
    for metric in ("criticality", "criticality_absolute", "criticality_error"):
        rows = table[table["metric"] == metric].set_index("layer")
        assert rows["value"].drop("(all)").sum() == pytest.approx(rows["value"]["(all)"], rel=1e-12)  # order of terms
        assert rows["n"]["(all)"] == len(rows) - 1


def test_the_bounds_are_above_what_the_network_has_learned(run: Run, table: pd.DataFrame) -> None:
    rows = np.flatnonzero(run.examples["split"] == "train")
    y = torch.as_tensor(run.examples["train_label"].to_numpy()[rows])
    with torch.no_grad():
        logits = run.model(run.data.inputs(rows))
    loss, error = float(nn.functional.cross_entropy(logits.double(), y)), float((logits.argmax(1) != y).double().mean())
    bounds = {row["metric"]: row["settings"]["bound"] for _, row in table[table["layer"] == "(all)"].iterrows()}
    assert bounds["criticality"] == pytest.approx(1.01 * loss, rel=1e-5)  # float32 logits, other batches
    assert bounds["criticality_absolute"] == pytest.approx(loss + 0.1, rel=1e-6)
    assert bounds["criticality_error"] == pytest.approx(error + 0.01)


def test_what_is_found_is_within_the_bound(table: pd.DataFrame) -> None:
    bounds = {row["metric"]: row["settings"]["bound"] for _, row in table.iterrows() if "bound" in row["settings"]}
    levels = table[table["metric"].str.endswith("_level")]
    assert len(levels) == 3 * 5
    for _, row in levels.iterrows():
        assert row["value"] <= bounds[row["metric"]] * (1 + 1e-9)


def test_the_network_is_left_bit_for_bit(run: Run) -> None:
    before = fingerprint(run.model)
    tables(run, CriticalityPlan(**PAPER))
    assert fingerprint(run.model) == before


def test_an_interrupted_search_leaves_the_network_bit_for_bit(run: Run) -> None:
    before, calls = fingerprint(run.model), 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 100:
            raise KeyboardInterrupt

    hook = run.model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        tables(run, CriticalityPlan())
    hook.remove()
    assert fingerprint(run.model) == before


def test_buffers_stay_as_trained(run: Run) -> None:
    means = []
    norm = run.model.get_submodule("norm")
    expected = norm.running_mean.clone()
    hook = norm.register_forward_hook(lambda module, x, out: means.append(module.running_mean.clone()))
    tables(run, CriticalityPlan(n_alphas=2, per_decade=1, **PAPER))
    hook.remove()
    assert all(torch.equal(mean, expected) for mean in means)


def test_layers_that_have_not_moved_cost_nothing(run: Run) -> None:
    rows = tables(run, CriticalityPlan(origin="last", **PAPER))
    assert set(rows[rows["metric"].isin(["distance", "criticality"])]["value"]) == {0}


def test_fewer_examples_are_drawn_by_seed_and_by_nothing_else(run: Run) -> None:
    plan = CriticalityPlan(most=20, n_alphas=3, per_decade=2, **PAPER)
    once, again = tables(run, plan), tables(run, plan)
    assert once["settings"].iloc[0]["n_examples"] == 20
    pd.testing.assert_frame_equal(once, again)


def test_kinds_without_examples_are_refused(run: Run) -> None:
    examples = run.examples.assign(permuted=False)
    clean = Run(run.directory, run.arch, run.model, run.data, examples, run.place, run.snapshots)
    with pytest.raises(UsageError, match="the run has no permuted examples; it has unpermuted, test"):
        tables(clean, CriticalityPlan(kinds=("permuted",)))


# ------------------------------------------------------------------------------------------------------- the slow version
@pytest.mark.parametrize("layer", ["first", "second", "again", "last"])
@pytest.mark.parametrize(("metric", "above"), [("loss", 1.01), ("loss", 3.0), ("error", 1.0)])
def test_the_search_finds_the_minimum_of_the_whole_grid(run: Run, layer: str, metric: str, above: float) -> None:
    """Proved for the last layer; on the others it is seen to."""
    plan = CriticalityPlan(n_alphas=6, per_decade=4, n_draws=4)
    segment, learned = segment_of(run, layer, run.snapshot("init").state(run.model)), learned_of(run)
    bound = above * sum(learned.sums(metric)) + (3 if metric == "error" else 0)
    scores = [
        (alpha / sigma * segment.distance) ** 2
        for alpha in plan.alphas.tolist()
        for sigma in plan.sigmas(*segment.scales).tolist()
        if whole_mean(segment, learned, alpha, sigma, metric, plan.n_draws) <= bound * (1 + 1e-12)
    ]
    found = module_criticality(segment, learned, bound, metric, plan)
    assert found.value == min(scores)
    assert found.n_tried <= plan.most_evaluations / plan.n_draws / 3


def whole_mean(segment: Segment, learned: Learned, alpha: float, sigma: float, metric: str, n_draws: int) -> float:
    """Every draw on every example, in another copy of the network."""
    model = copy.deepcopy(segment.model)
    sums = []
    for i in range(n_draws):
        for name, tensor in segment.at(alpha, sigma, i).items():
            model.get_parameter(name).data = tensor  # of a shared kernel, in both modules
            model.again.weight = model.second.weight
        with torch.no_grad():
            logits = model(learned.source.X)
        losses = nn.functional.cross_entropy(logits.double(), learned.y, reduction="none")
        sums.append(float(losses.sum() if metric == "loss" else (logits.argmax(1) != learned.y).sum()))
    return sum(sums) / n_draws


def learned_of(run: Run) -> Learned:
    rows = np.flatnonzero(run.examples["split"] == "train")
    y = torch.as_tensor(run.examples["train_label"].to_numpy()[rows])
    return Learned(run.model, Rows(run.data.inputs(rows)), y, batch_size=len(rows))


def segment_of(run: Run, layer: str, start: dict[str, Tensor]) -> Segment:
    groups = {group.name: group for group in group_layers(run.model, run.data.inputs([0, 1]))}
    return Segment(run.model, groups[layer], start)


def fingerprint(model: nn.Module) -> str:
    state = model.state_dict()
    return hashlib.sha256(b"".join(name.encode() + t.numpy().tobytes() for name, t in state.items())).hexdigest()


# ------------------------------------------------------------------------------------------------------------- the path
def test_a_segment_runs_from_the_start_to_the_trained_weights(run: Run) -> None:
    start = run.snapshot("init").state(run.model)
    segment = segment_of(run, "first", start)
    for name, tensor in segment.at(0.0, 0.0, draw=0).items():
        assert torch.equal(tensor, start[name])
    for name, tensor in segment.at(1.0, 0.0, draw=0).items():
        assert torch.equal(tensor, run.model.state_dict()[name])


def test_draws_come_in_pairs_and_are_the_same_everywhere(run: Run) -> None:
    segment = segment_of(run, "first", {name: torch.zeros_like(t) for name, t in run.model.state_dict().items()})
    one, other = segment.at(0.0, 0.5, draw=2), segment.at(0.0, 0.5, draw=3)
    third, elsewhere = segment.at(0.0, 0.5, draw=4), segment.at(0.0, 1.0, draw=2)
    for name, u in one.items():
        assert torch.equal(other[name], -u)
        assert torch.equal(elsewhere[name], 2 * u)
        assert not torch.equal(third[name].abs(), u.abs())
    u = one["first.weight"]
    assert float(u.std()) == pytest.approx(0.5, rel=4 / math.sqrt(2 * u.numel()))  # of a standard deviation


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (0.3, 7.0)])
def test_sigmas_are_even_in_the_logarithm_and_reach_both_ends(start: float, end: float) -> None:
    plan = CriticalityPlan(lowest=1e-3, highest=5.0, per_decade=7)
    sigmas = plan.sigmas(start, end)
    assert sigmas[0] == pytest.approx(1e-3 * start)
    assert sigmas[-2] < 5.0 * end <= sigmas[-1] * (1 + 1e-9)
    assert np.diff(np.log10(sigmas)) == pytest.approx(1 / 7)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"factor": 0.9}, "factor must be 1 or more, got 0.9"),
    ({"delta": -1.0}, "delta must be 0 or more"),
    ({"error": -0.1}, "error must be 0 or more"),
    ({"kinds": ("permutd",)}, "no kind 'permutd'; did you mean 'permuted'"),
    ({"kinds": ()}, "kinds must be one or more"),
    ({"most": 0}, "most must be 1 or more"),
    ({"n_draws": 3}, "n_draws must be an even number"),
    ({"n_alphas": 1}, "n_alphas must be 2 or more"),
    ({"lowest": 20.0}, "lowest must be above 0 and below highest"),
    ({"per_decade": 0}, "per_decade must be 1 or more"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_plan_out_of_range_is_refused_with_the_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CriticalityPlan(**options)
