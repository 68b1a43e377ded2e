"""Summary of a table of examples in a few numbers: depth by kind, permuted against unpermuted, and who carries the load."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from manigeo.kinds import ROLES, in_order
from manigeo.manifolds import standard_error
from manigeo.per_example.table import wide_examples
from manigeo.results import in_roles


@dataclass(frozen=True)
class Summary:
    """Numbers over examples, each with its standard error over examples where it has one.

    ``depths``: metric -> kind -> (mean, error). ``auroc``: metric -> (probability that a permuted example is more difficult
    by this number than an unpermuted one, and its error); empty without both. ``test_accuracy``: depth -> (accuracy, number
    of test examples). ``load_share``: measure -> layer -> share of 1/capacity that permuted examples carry.
    """

    depths: dict[str, dict[str, tuple[float, float]]]
    n: dict[str, int]
    n_layers: int
    auroc: dict[str, tuple[float, float]]
    test_accuracy: dict[int, tuple[float, int]]
    load_share: dict[str, dict[str, float]]

    def depths_kinds(self) -> set[str]:
        """The kinds that have any of the ``depths``."""
        return {kind for of in self.depths.values() for kind in of}

    def record(self) -> dict[str, Any]:
        """The numbers as a mapping, for JSON."""
        return asdict(self)


DIFFICULTY = {
    "prediction_depth": 1, "margin": -1, "epoch_learned": 1, "forgetting": 1, "area_under_margin": -1, "confidence": -1,
    "variability": 1, "el2n": 1, "memorization": 1, "channels_to_flip": -1, "lens_depth": 1,
}  # 1: more is more difficult  # fmt: skip
SUMMED = ("prediction_depth", "memorization_depth", "last_true_layer", *list(DIFFICULTY)[1:])


def summarize(table: pd.DataFrame) -> Summary:
    """Summarize the table of one network.

    >>> from manigeo.per_example.table import example_rows
    >>> shown = pd.DataFrame({"index": range(4), "split": "train", "true_label": 0, "train_label": 0,
    ...                       "kind": ["unpermuted", "unpermuted", "permuted", "permuted"]})
    >>> s = summarize(example_rows(shown, {"prediction_depth": np.array([0, 2, 3, 5])}))
    >>> s.depths["prediction_depth"]["permuted"], s.auroc["prediction_depth"][0]
    ((4.0, 1.0), 1.0)
    """
    whole = wide_examples(table[(table["layer"] == "") & table["metric"].isin([*SUMMED, "answer"])])
    present = [name for name in SUMMED if name in whole]
    counts = table.drop_duplicates(["index", "split"])["kind"].astype(str).value_counts()
    return Summary(
        {name: _by_kind(whole, name) for name in present},
        {kind: int(counts[kind]) for kind in in_order(counts.index)},
        table.loc[table["layer"] != "", "layer"].nunique(),
        _aurocs(in_roles(whole), in_roles(table)[table["flag"] == "not_learned"]),
        _test_accuracy(whole),
        load_shares(in_roles(table)),
    )


def _by_kind(whole: pd.DataFrame, name: str) -> dict[str, tuple[float, float]]:
    of = {kind: rows[name].dropna().to_numpy() for kind, rows in whole.groupby("kind")}
    return {kind: (float(of[kind].mean()), float(standard_error(of[kind]))) for kind in in_order(of) if len(of[kind])}


def _aurocs(whole: pd.DataFrame, never: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The AUROC by each measure of difficulty; an example that was ``never`` learned is beyond all that were."""
    found = {}
    for name, sign in DIFFICULTY.items():
        if name not in whole:
            continue
        never_learned = never.loc[never["metric"] == name, "kind"].value_counts()
        beyond = {kind: np.full(int(never_learned.get(kind, 0)), np.inf) for kind in ROLES.values()}
        score = {kind: whole.loc[whole["kind"] == kind, name].dropna().to_numpy() for kind in beyond}
        permuted, unpermuted = (np.concatenate([sign * score[kind], beyond[kind]]) for kind in beyond)
        if len(permuted) and len(unpermuted):
            found[name] = auroc(permuted, unpermuted)
    return found


def auroc(positive: Float[np.ndarray, " m"], negative: Float[np.ndarray, " n"]) -> tuple[float, float]:
    r"""Area under the ROC curve, :math:`A = P(x > y) + P(x = y)/2`, and its standard error.

    .. math:: \mathrm{se}^2 = \frac{A(1 - A) + (m - 1)(Q_1 - A^2) + (n - 1)(Q_2 - A^2)}{mn},
              \qquad Q_1 = \frac{A}{2 - A}, \quad Q_2 = \frac{2A^2}{1 + A}

    Hanley & McNeil (1982), Radiology 143, 29.

    >>> auroc(np.array([1.0, 3.0]), np.array([0.0, 1.0]))[0]
    0.875
    """
    from scipy.stats import rankdata  # slow to import

    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))[:m]
    A = float((ranks.sum() - m * (m + 1) / 2) / (m * n))
    spread = A * (1 - A) + (m - 1) * (A / (2 - A) - A**2) + (n - 1) * (2 * A**2 / (1 + A) - A**2)
    return A, float(np.sqrt(max(spread, 0.0) / (m * n)))


def _test_accuracy(whole: pd.DataFrame) -> dict[int, tuple[float, int]]:
    if not {"prediction_depth", "answer"} <= set(whole):
        return {}
    test = whole[whole["kind"] == "test"]
    right = (test["answer"] == test["true_label"]).groupby(test["prediction_depth"].astype(int))
    return {int(depth): (float(part.mean()), len(part)) for depth, part in right}


def load_shares(table: pd.DataFrame, kind: str = "permuted") -> dict[str, dict[str, float]]:
    """Share of the inverse capacity that the examples of a kind carry: measure -> layer -> share."""
    found: dict[str, dict[str, float]] = {}
    for measure in ("load", "load_joint"):
        rows = table[table["metric"] == measure]
        if (rows["kind"] == kind).any():
            sums = rows.groupby("layer", observed=True, sort=False)["value"].sum()
            of_kind = rows[rows["kind"] == kind].groupby("layer", observed=True, sort=False)["value"].sum()
            found[measure] = {str(layer): float(of_kind.get(layer, 0.0) / total) for layer, total in sums.items()}
    return found
