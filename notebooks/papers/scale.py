"""Small tables of large runs, from ``data/results``: read where they are as ``tables.toml`` describes them, else refused."""

import hashlib
import tomllib
from pathlib import Path

import pandas as pd

from manigeo.errors import InputError

RESULTS = Path(__file__).parents[2] / "data" / "results"


def at_scale(name: str, folder: Path = RESULTS) -> pd.DataFrame:
    """Table of a run at scale, with the columns and the content that ``tables.toml`` has for it.

    Raises :class:`~manigeo.errors.InputError`, with the command that makes the table anew, where the file is missing, has
    other columns, or is of another run or commit, so that its SHA-256 is another one.
    """
    known = tomllib.loads((folder / "tables.toml").read_text("utf-8"))
    if name not in known:
        raise InputError(f"{name} is not described in {folder / 'tables.toml'}, which has {', '.join(known)}")
    told, path = known[name], folder / name
    if wrong := _what_is_wrong(path, told):
        raise InputError(f"{path} {wrong}: make it anew with `{told['command']}`")
    return pd.read_csv(path, keep_default_na=False, na_values={"value": "", "stderr": "", "depth": ""})


def _what_is_wrong(path: Path, told: dict[str, str]) -> str | None:
    if not path.exists():
        return "is missing"
    content = path.read_bytes()
    header = content.split(b"\n", 1)[0].decode(errors="replace").strip()
    if header != told["columns"]:
        return f"has the columns {header}, expected {told['columns']}"
    if (found := hashlib.sha256(content).hexdigest()) != told["sha256"]:
        return f"is of another run or commit (SHA-256 {found[:12]}, expected {told['sha256'][:12]})"
    return None


def wide(table: pd.DataFrame, metric: str, column: str = "value") -> pd.DataFrame:
    """Values of a metric: a row per checkpoint and kind, a column per layer in the order of depth."""
    rows = table[table["metric"] == metric]
    layers = list(rows.sort_values("depth")["layer"].unique())
    return rows.pivot_table(index=["checkpoint", "kind"], columns="layer", values=column)[layers]
