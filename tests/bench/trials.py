"""Summary of the benchmark of localization for the package: ``python -m tests.bench.trials``.

From ``data/results/localization_benchmark.csv`` (one row per planted network and method, made by ``manigeo benchmark``) to
``manigeo/localization/trials.csv`` (one row per kind of network and method).
"""

from pathlib import Path

import pandas as pd

from manigeo.localization.trials import ALL
from manigeo_extract.planting.scoring import summarize

ROOT = Path(__file__).parents[2]
SCORES = ROOT / "data" / "results" / "localization_benchmark.csv"
TRIALS = ROOT / "manigeo" / "localization" / "trials.csv"
LANGUAGE = "language"
KINDS = {"mlp": "mlp", "cnn": "cnn", "resmlp": "residual", "vit": "transformer", "gpt": LANGUAGE}
COLUMNS = ["kind", "method", "found", "found_low", "found_high", "found_n", "chance"]


def trials(scores: pd.DataFrame) -> pd.DataFrame:
    """Shares of networks in which one layer, or a pair, was planted and found, by kind of network and over all kinds but
    language models, in which canaries are planted and no labels."""
    asked = scores[scores["found"].notna()]
    asked = asked.assign(kind=asked["arch"].map(KINDS))
    by_kind = summarize(asked, ("kind", "method"))
    over_all = summarize(asked[asked["kind"] != LANGUAGE], ("method",)).assign(kind=ALL)
    return pd.concat([by_kind, over_all], ignore_index=True)[COLUMNS].round(4)


if __name__ == "__main__":
    trials(pd.read_csv(SCORES)).to_csv(TRIALS, index=False)
