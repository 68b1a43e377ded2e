"""How a changed network does, beside the network as it was."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine, jensenshannon
from torch import nn

from manigeo.errors import UsageError
from manigeo_extract.interventions.prefixes import Prefixes
from manigeo_extract.interventions.scoring import Answers, Examiner
from manigeo_extract.training.evaluation import evaluate
from tests.test_evaluation import CLASSES, Inputs, network, table


@pytest.fixture
def examiner():
    return Examiner(Inputs(), table(), batch_size=7)


def rows(found):
    return {(row["kind"], row["metric"]): row for row in found}


def test_accuracy_and_loss_are_those_of_the_evaluation_in_training(examiner):
    scores = evaluate(network(), Inputs(), table())
    found = rows(examiner.rows_of(examiner.answers(network())))
    assert examiner.kinds == tuple(scores)
    for kind, score in scores.items():
        assert found[kind, "accuracy"]["value"] == pytest.approx(score["accuracy"], abs=1e-12)
        assert found[kind, "loss"]["value"] == pytest.approx(score["loss"], rel=1e-6)  # float32 logits
        assert found[kind, "accuracy"]["n"] == score["n"]


def test_the_error_of_an_accuracy_is_binomial(examiner):
    found = rows(examiner.rows_of(examiner.answers(network())))["test", "accuracy"]
    p, n = found["value"], found["n"]
    assert found["stderr"] == pytest.approx(np.sqrt(p * (1 - p) / (n - 1)))


def test_a_network_is_at_no_distance_from_itself(examiner):
    answers = examiner.answers(network())
    for (_, metric), row in rows(examiner.compared(answers, answers, 0.1)).items():
        if metric in ("accuracy_drop", "softmax_distance", "js"):
            assert row["value"] == pytest.approx(0, abs=1e-6)  # cosines in float32


def test_distances_of_answers_are_those_of_scipy(examiner):
    before, after = examiner.answers(network()), Answers(torch.randn(len(examiner.rows), CLASSES).log_softmax(1))
    found = rows(examiner.compared(before, after))
    at = np.flatnonzero(np.isin(examiner.rows, np.flatnonzero(table()["split"] == "test")))
    p, q = before.log_p.exp().double().numpy()[at], after.log_p.exp().double().numpy()[at]
    expected = np.mean([cosine(a, b) for a, b in zip(p, q, strict=True)])
    assert found["test", "softmax_distance"]["value"] == pytest.approx(expected, abs=1e-6)
    expected = np.mean([jensenshannon(a, b, base=2) ** 2 for a, b in zip(p, q, strict=True)])
    assert found["test", "js"]["value"] == pytest.approx(expected, abs=1e-6)


def test_answers_that_have_nothing_in_common_are_at_distance_one(examiner):
    n = len(examiner.rows)
    one, other = (torch.full((n, CLASSES), -torch.inf) for _ in range(2))
    one[:, 0] = other[:, 1] = 0
    found = rows(examiner.compared(Answers(one), Answers(other)))
    assert found["test", "softmax_distance"]["value"] == 1
    assert found["test", "js"]["value"] == pytest.approx(1)


def test_the_normalised_drop_is_one_at_chance_and_flagged_with_nothing_to_lose():
    X, labels = torch.eye(4).repeat(30, 1), np.tile(np.arange(4), 30)
    examples = table().iloc[:1].loc[[0] * 120].reset_index(drop=True)
    examples = examples.assign(split="test", true_label=labels, train_label=labels, permuted=False)

    class Source:
        def inputs(self, at):
            return X[torch.as_tensor(at)]

    examiner = Examiner(Source(), examples)
    right = Answers((20 * torch.eye(4).repeat(30, 1)).log_softmax(1))
    constant = Answers(torch.tensor([1.0, 0, 0, 0]).repeat(120, 1).log_softmax(1))
    found = rows(examiner.compared(right, constant, 0.5))
    assert found["test", "normalised_drop"]["value"] == pytest.approx(1)
    assert found["test", "critical"]["value"] == 1
    assert found["test", "accuracy_drop"]["value"] == 0.75
    back = rows(examiner.compared(constant, right, 0.5))
    assert (back["test", "critical"]["flag"], np.isnan(back["test", "normalised_drop"]["value"])) == ("at_chance", True)


def test_a_sample_of_examples_is_the_same_images_for_permuted_and_restored():
    small = Examiner(Inputs(), table(), most=5, seed=1)
    assert {kind: small.n(kind) for kind in small.kinds} == dict.fromkeys(small.kinds, 5)
    assert torch.equal(small._members["permuted"][0], small._members["restored"][0])
    assert not np.array_equal(small.rows, Examiner(Inputs(), table(), most=5, seed=2).rows)


def test_labels_beyond_the_outputs_are_refused(examiner):
    with pytest.raises(UsageError, match=r"the model has 2 outputs, the labels go up to 2 \(from 0 on\)"):
        examiner.answers(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)))
    with pytest.raises(UsageError, match=r"must return a tensor \(examples, outputs\), got shape"):
        examiner.answers(nn.Sequential(nn.Linear(3, 3)))


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4), nn.Linear(4, CLASSES))


def test_layers_before_a_change_are_computed_once_with_the_same_answers(examiner):
    from manigeo_extract.interventions.groups import group_layers

    net = chain()
    groups = group_layers(net, torch.zeros(2, 2, 3))
    prefixes, seen = Prefixes(net, examiner), []
    net[1].register_forward_hook(lambda m, x, y: seen.append(len(y)))
    for group in (groups[0], groups[1], groups[2], groups[2]):
        with torch.no_grad():
            net.get_parameter(group.parameters[0]).mul_(2)
        torch.testing.assert_close(prefixes.answers([group]).log_p, examiner.answers(net).log_p, rtol=0, atol=0)
        with torch.no_grad():
            net.get_parameter(group.parameters[0]).div_(2)  # by a power of two: the same bits
    # four passes to compare with; of its own one for the change of that very layer, one for the inputs of the next
    assert sum(seen) == 6 * len(examiner.rows)


def test_inputs_that_would_take_too_much_memory_are_not_kept(examiner, monkeypatch):
    monkeypatch.setattr("manigeo_extract.interventions.prefixes.IN_MEMORY", 10)
    from manigeo_extract.interventions.groups import group_layers

    net = chain()
    prefixes = Prefixes(net, examiner)
    for group in group_layers(net, torch.zeros(2, 2, 3)):
        assert torch.equal(prefixes.answers([group]).log_p, examiner.answers(net).log_p)
    assert prefixes._inputs == {}
