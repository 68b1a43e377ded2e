"""Over many runs: how far each layer moved, beside how well the network generalized, and how the two go together."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from manigeo.correlation import COEFFICIENTS, correlate
from manigeo.errors import InputError, check_choice
from manigeo.faces.progress import track
from manigeo.results import as_table
from manigeo.runs import RunFolder, check_no_copies, distinct_names
from manigeo.weights import MEASURES
from manigeo_extract.training.recorder import flat_settings
from manigeo_extract.weights.trajectory import run_checkpoints, weight_table

PathLike = str | os.PathLike[str]

# gap -> the score, the kinds that were trained on, and the sign of test less training with which overfitting is positive
_GAPS = {
    "accuracy": ("accuracy", ["unpermuted", "permuted"], -1),
    "clean": ("accuracy", ["unpermuted"], -1),
    "loss": ("loss", ["unpermuted", "permuted"], 1),
}
GAPS = tuple(_GAPS)
# What differs between any two runs, and is nothing that was varied.
_NOT_VARIED = ("versions", "machine", "data_fingerprint", "format", "run_id")


def generalization_gap(metrics: pd.DataFrame, gap: str = "accuracy") -> float:
    """Generalization gap at the last epoch of a run's metrics: score on the training examples minus that on test data.

    ``"accuracy"``: training accuracy, permuted labels included, minus test accuracy; ``"clean"``: the same with the
    unpermuted examples alone; ``"loss"``: test loss minus training loss.

    Raises :class:`~manigeo.errors.UsageError` for a gap that is none of :data:`GAPS`,
    :class:`~manigeo.errors.InputError` for metrics without test data, or without training data.
    """
    check_choice("gap", gap, GAPS)
    name, kinds, sign = _GAPS[gap]
    last = metrics[metrics["epoch"] == metrics["epoch"].max()].set_index("kind")
    trained = last.reindex(kinds).dropna(subset="n")
    if trained.empty or "test" not in last.index:
        raise InputError(
            f"a gap needs test and {' or '.join(kinds)} examples, the metrics have {', '.join(last.index)}; give runs of "
            "manigeo train, which scores all kinds"
        )
    in_training = float(np.average(trained[name].astype(float), weights=trained["n"].astype(float)))
    return sign * (float(last.loc["test", name]) - in_training)


def correlation_table(
    runs: Sequence[PathLike],
    measure: str = "rotation",
    gap: str = "accuracy",
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Movement of every layer that all runs have, between their first and last checkpoint, against their gap.

    Rows of a run: ``measure`` of each layer, and ``gap``. Rows of a layer over all runs (their ``run`` is empty):
    ``pearson``, ``spearman``, ``kendall`` and their ``_ci_low`` and ``_ci_high``, and the same ending in ``_partial`` with
    the number of the layer's weights given (its logarithm), which distances grow with.

    Raises :class:`~manigeo.errors.InputError` for runs without metrics, test data, two checkpoints or a layer in common,
    :class:`~manigeo.errors.UsageError` for a run that is given twice, or copied.
    """
    check_choice("measure", measure, MEASURES)
    check_choice("gap", gap, GAPS)
    check_no_copies(runs)
    settings = json.dumps(
        {"analysis": "correlate", "measure": measure, "gap": gap, "resamples": n_resamples, "seed": seed}
    )
    named = track(list(zip(distinct_names(runs), runs, strict=True)), "correlate", "run", progress)
    moved = pd.concat([_of_run(name, run, measure, gap) for name, run in named], ignore_index=True)
    common = [layer for layer, rows in moved.groupby("layer", sort=False) if len(rows) == len(runs)]
    if not common:
        raise InputError("the runs have no layer in common: compare networks of one depth")
    rows = [
        {"run": run, "run_id": run_id, "metric": "gap", "value": value}
        for run, run_id, value in moved.drop_duplicates("run")[["run", "run_id", "gap"]].itertuples(index=False)
    ]
    for depth, layer in enumerate(common):
        of_layer = moved[moved["layer"] == layer]
        place = {"layer": layer, "depth": depth}
        rows += [
            place | {"run": run, "run_id": run_id, "metric": measure, "value": value, "flag": flag}
            for run, run_id, value, flag in of_layer[["run", "run_id", "value", "flag"]].itertuples(index=False)
        ]
        rows += [place | row for row in _coefficients(of_layer, n_resamples, seed)]
    return as_table([{"settings": settings} | row for row in rows])


def _of_run(name: str, run: PathLike, measure: str, gap: str) -> pd.DataFrame:
    """A row a layer: how far it moved, how many weights it has, and the run's gap."""
    metrics = RunFolder(Path(run)).metrics()
    paths = run_checkpoints(run)
    table = weight_table([paths[0], paths[-1]])
    end = table[table["fingerprint"] == table["fingerprint"].iloc[-1]]
    wide = end.pivot(index="layer", columns="metric", values="value")
    order = end.drop_duplicates("layer").set_index("layer")
    return pd.DataFrame(
        {
            "run": name,
            "run_id": RunFolder(Path(run)).identity,
            "layer": order.index,
            "value": wide.loc[order.index, measure].to_numpy(),
            "weights": wide.loc[order.index, "weights"].to_numpy(),
            "flag": order["flag"].to_numpy(),
            "gap": generalization_gap(metrics, gap),
        }
    )


def _coefficients(of_layer: pd.DataFrame, n_resamples: int, seed: int) -> list[dict[str, Any]]:
    defined = of_layer.dropna(subset=["value", "gap"])
    x, y, size = (defined[name].to_numpy(dtype=float) for name in ("value", "gap", "weights"))
    rows = []
    for name in COEFFICIENTS:
        for ending, given in (("", None), ("_partial", np.log(size))):
            r = correlate(x, y, name, given=given, n_resamples=n_resamples, seed=seed)
            common = {"n": r.n, "flag": r.flag}
            for part, value in (("", r.value), ("_ci_low", r.low), ("_ci_high", r.high)):
                rows.append(common | {"metric": f"{name}{ending}{part}", "value": value})
    return rows


def what_varied(runs: Sequence[PathLike]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, each with the values that it took."""
    settings = [flat_settings(RunFolder(Path(run)).description()) for run in runs]
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    varied = {name: sorted({json.dumps(of_run.get(name)) for of_run in settings}) for name in names}
    return {
        name: [json.loads(value) for value in values]
        for name, values in varied.items()
        if len(values) > 1 and not name.startswith(_NOT_VARIED)
    }
