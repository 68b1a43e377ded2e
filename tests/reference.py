"""Exact cases and other programs' outputs, kept beside the project in ``shared/``; tests skip where they are absent."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# beside the checkout, or where the environment says (an installed copy of the tests runs elsewhere)
SHARED = Path(os.environ.get("MANIGEO_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in a folder shared/ beside the project")
    return path


def theory_cases() -> list[dict[str, Any]]:
    path = SHARED / "reference" / "theory_cases.json"
    return json.loads(path.read_text()) if path.exists() else []


def vertices(case: dict[str, Any]) -> np.ndarray:
    """The point cloud of a theory case, around its centre, in centre-norm units."""
    D, R = case["D"], case["R"]
    if case["kind"] == "segment":
        return np.array([[R], [-R]])
    if case["kind"] == "simplex":
        return simplex(D, R)
    if case["kind"] == "crosspoly":
        return R * np.vstack([np.eye(D), -np.eye(D)])
    if case["kind"] == "cube":
        return R * np.array(np.meshgrid(*[[-1.0, 1.0]] * D)).reshape(D, -1).T
    raise ValueError(case["kind"])


def simplex(D: int, R: float) -> np.ndarray:
    """D + 1 points at distance R from their mean, in D dimensions."""
    corners = np.eye(D + 1) - 1 / (D + 1)
    basis = np.linalg.svd(corners)[2][:D].T
    points = corners @ basis
    return R * points / np.linalg.norm(points[0])
