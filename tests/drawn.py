"""A small table for every figure, of the columns and settings that its command writes."""

import json

import pandas as pd

from manigeo.kinds import KINDS
from manigeo.plots.gradients import GRADIENT_PANELS
from manigeo.plots.movement import WEIGHT_PANELS
from manigeo.results import as_table
from tests.test_plots import estimator_table, geometry_table, sweep_table
from tests.test_plots_separability import capacities, measured, transfers

LAYERS = ("h1", "h2")


def rows(metrics=("accuracy",), kinds=KINDS, layers=LAYERS, depth=0, **more) -> list[dict[str, object]]:
    """One row per metric, layer and kind; what is no column of a table is one of its settings."""
    columns = ("run", "checkpoint", "epoch", "fingerprint", "n")
    settings = {name: value for name, value in more.items() if name not in columns}
    fixed = {name: value for name, value in more.items() if name in columns} | {"settings": json.dumps(settings)}
    return [
        {"layer": layer, "depth": depth + i, "kind": kind, "metric": metric, "value": 0.1 + 0.2 * i, **fixed}
        for metric in metrics for i, layer in enumerate(layers) for kind in kinds
    ]  # fmt: skip


def movement() -> pd.DataFrame:
    return as_table([row for epoch in (0, 1) for row in rows(WEIGHT_PANELS, [""], epoch=epoch, fingerprint=str(epoch))])


def correlated() -> pd.DataFrame:
    runs = [row for run in "abc" for row in rows(["rotation"], [""], run=run, gap="loss")]
    runs += [row for run in "abc" for row in rows(["gap"], [""], [""], run=run)]
    return as_table(runs + rows(["spearman", "spearman_ci_low", "spearman_ci_high"], [""], gap="loss"))


def rewound() -> pd.DataFrame:
    before = {"analysis": "rewind", "to": "epoch-0", "to_epoch": 0}
    swept = [row for sweep in ("last", "each") for row in rows(sweep=sweep, **before)]
    return as_table(swept + rows(layers=["(none)"], analysis="rewind", sweep="none"))


def reinitialised() -> pd.DataFrame:
    to = {"analysis": "reinit", "sweep": "each"}
    trained = rows(layers=["(none)"], analysis="reinit", sweep="none")
    return as_table(rows(**to, to="fresh") + rows(**to, to="epoch-0", to_epoch=0) + trained)


def reset() -> pd.DataFrame:
    done = [
        row for k in (1, 2) for row in rows(layers=["h2"], depth=k, analysis="final_reset", k=k, to="zero", steps=0)
    ]
    return as_table(done + rows(layers=["(none)"], analysis="final_reset", k=0, steps=0))


def localized() -> pd.DataFrame:
    asked = {"rewinding": "holds", "geometry": "apart"}
    of = [{"analysis": "localize", "method": name, "question": word} for name, word in asked.items()]
    names = ("center_of_mass", "center_of_mass_ci_low", "center_of_mass_ci_high", "localized")
    profiles = [row for m in of for row in rows(["profile", "profile_ci_low", "profile_ci_high"], [""], **m)]
    return as_table(profiles + [row for m in of for row in rows(names, [""], [""], **m)])


def flipped() -> pd.DataFrame:
    counts = [f"channels_to_flip{end}" for end in ("", "_ci_low", "_ci_high")]
    return as_table(rows(counts, layers=["(all)"]) + rows(["channel_share", "channel_share_chance"]))


def gradients(ending="") -> pd.DataFrame:
    metrics = [f"{metric}{ending}" for metric in GRADIENT_PANELS[: 2 if ending else None]]
    places = [{"fingerprint": str(epoch), "epoch": epoch, "n": n} for epoch, n in ((0, 10), (1, 40))]
    return as_table([row for place in places for row in rows(metrics, **place, **{"with": "unpermuted"})])


TABLES = {
    "geometry": geometry_table(layers=2),
    "estimators": estimator_table(),
    "sweep": sweep_table(),
    "weights": movement(),
    "correlation": correlated(),
    "separability": measured(kinds=["test"]),
    "fuzziness": measured(["separation_fuzziness"], kinds=["test"]),
    "latent": measured(["latent_mean", "latent_subspace", "network_accuracy"], kinds=["test"]),
    "progress": measured(["probe_accuracy", "kmeans_nmi"], kinds=["test"]),
    "transfer": transfers(),
    "memorization": pd.concat([measured(["probe_accuracy"]), capacities()], ignore_index=True),
    "similarity": as_table(rows(["cka", "procrustes_angle"], against_checkpoint="last", checkpoint="best")),
    "rewind": rewound(),
    "reinit": reinitialised(),
    "final-reset": reset(),
    "lens": as_table(rows(["lens_accuracy", "lens_exact"])),
    "utilisation": as_table(rows(["prefix_accuracy"])),
    "criticality": as_table(rows(["criticality", "criticality_error"], [""])),
    "channels": flipped(),
    "localization": localized(),
    "depth": localized(),
    "gradients": gradients(),
    "gradient-sizes": gradients("_sweep").query("epoch == 0 or n == 40").assign(epoch=1, fingerprint="1"),
}
