r"""Movement of weights: layer rotation and distances, from plain arrays.

With the weights :math:`w_0` of a layer at the start and :math:`w` now, flattened, and :math:`\delta = w - w_0`:

.. math:: \text{rotation} = 1 - \cos(w_0, w) = 1 - \frac{w_0 \cdot w}{|w_0|\,|w|}
              = \frac{|\delta|^2 - (|w| - |w_0|)^2}{2\,|w_0|\,|w|}, \qquad \text{angle} = \arccos(1 - \text{rotation})

(Carbonnelle & De Vleeschouwer 2019), and the norms :math:`|\delta|_1, |\delta|_2, |\delta|_\infty`, the root mean square
:math:`|\delta|_2/\sqrt n` and the relative distance :math:`|\delta|_2/|w_0|_2`, which Wang & Yang (2022) follow over
training without stating which of them. Of small changes the last form is taken, which keeps the digits that
:math:`1 - \cos` loses, with :math:`|w| - |w_0| = \delta \cdot (w + w_0) / (|w| + |w_0|)`.

Layers are the tensors that multiply inputs, see :func:`is_kernel`: not biases, not normalisation.

>>> change = weight_change(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
>>> change.rotation, round(change.angle, 9)
(1.0, 1.570796327)
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

MEASURES = (
    "rotation", "angle", "distance_l1", "distance_l2", "distance_linf", "distance_rms", "distance_relative",
    "norm_start", "norm",
)  # fmt: skip
_KERNEL = re.compile(
    r"weight$|(^|\.)weight_((ih|hh|hr)(_l\d+(_reverse)?)?|v|orig)$|(^|\.)parametrizations\.[^.]*weight[^.]*\.original1?$"
)
_SMALL = 0.1  # a change, squared, against the start: rotations up to a twentieth


@dataclass(frozen=True)
class WeightChange:
    """Change between two states of ``n`` weights: sums from which every measure follows, and which add up over layers.

    ``l1``, ``linf`` and ``squared`` are of the difference; ``squared_start`` and ``squared_end`` of the weights, ``dot`` is
    their inner product and ``excess`` the difference of their squares, taken as one sum.
    """

    n: int
    l1: float
    linf: float
    squared: float
    squared_start: float
    squared_end: float
    dot: float
    excess: float

    @property
    def norm_start(self) -> float:
        return float(np.sqrt(self.squared_start))

    @property
    def norm(self) -> float:
        return float(np.sqrt(self.squared_end))

    @property
    def rotation(self) -> float:
        """1 - cos, from 0 to 2; NaN where either state is zero and has no direction."""
        product = self.norm_start * self.norm
        if product == 0:
            return np.nan
        if self.squared > _SMALL * self.squared_start:
            return float(np.clip(1 - self.dot / product, 0.0, 2.0))
        lengthened = self.excess / (self.norm + self.norm_start)
        return float(max(self.squared - lengthened**2, 0.0) / (2 * product))

    @property
    def angle(self) -> float:
        """Angle between both states, in radians."""
        return float(2 * np.arcsin(np.sqrt(self.rotation / 2)))

    @property
    def distance_l1(self) -> float:
        return self.l1

    @property
    def distance_l2(self) -> float:
        return float(np.sqrt(self.squared))

    @property
    def distance_linf(self) -> float:
        return self.linf

    @property
    def distance_rms(self) -> float:
        return float(np.sqrt(self.squared / self.n))

    @property
    def distance_relative(self) -> float:
        """Distance in units of the norm at the start; NaN where that is zero."""
        return float(np.sqrt(self.squared / self.squared_start)) if self.squared_start > 0 else np.nan

    @property
    def flag(self) -> str:
        """Why some measures are NaN."""
        return "zero_norm" if self.squared_start == 0 or self.squared_end == 0 else ""


def weight_change(start: Float[np.ndarray, "..."], end: Float[np.ndarray, "..."]) -> WeightChange:
    """Measure the movement between two states of a tensor of any shape; sums are float64 whatever comes in.

    Raises ``ValueError`` for different shapes, no weights at all, NaN or infinite entries.

    >>> turned = weight_change(np.array([1.0, 0.0]), np.array([0.0, 3.0]))
    >>> turned.rotation, turned.norm
    (1.0, 3.0)
    """
    if start.shape != end.shape or start.size == 0:
        raise ValueError(
            f"two states of a layer have one shape and a weight or more, got {start.shape} and {end.shape}"
        )
    change = WeightChange(start.size, *_sums(_flat(start), _flat(end)))
    if not np.isfinite([change.squared, change.squared_start]).all():
        raise ValueError("weights hold NaN or infinite entries, or their squares overflow; check the checkpoint")
    return change


def _flat(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(w if w.dtype in (np.float32, np.float64) else w.astype(np.float64)).ravel()


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # lets it take eight weights at a time
@no_type_check
def _sums(a, b):
    """The fields of a change, in one pass: checkpoints of many layers are as long to read as to measure."""
    l1 = linf = squared = squared_start = squared_end = dot = excess = 0.0
    for i in range(a.size):
        x, y = np.float64(a[i]), np.float64(b[i])
        d = y - x
        l1 += abs(d)
        linf = max(linf, abs(d))
        squared += d * d
        squared_start += x * x
        squared_end += y * y
        dot += x * y
        excess += d * (x + y)
    return l1, linf, squared, squared_start, squared_end, dot, excess


def pooled_change(changes: Iterable[WeightChange]) -> WeightChange:
    """Pool the changes of several layers as one long vector, e.g. the last k of a network.

    >>> one = weight_change(np.array([3.0]), np.array([3.0]))
    >>> other = weight_change(np.array([0.0]), np.array([4.0]))
    >>> pooled_change([one, other]).norm
    5.0
    """
    parts = list(changes)
    if not parts:
        raise ValueError("nothing to pool: give one layer or more")
    sums = ("n", "l1", "squared", "squared_start", "squared_end", "dot", "excess")
    return WeightChange(
        **{name: sum(getattr(c, name) for c in parts) for name in sums}, linf=max(c.linf for c in parts)
    )


def is_kernel(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor of a state dict multiplies inputs: a ``weight`` of two dimensions or more.

    Convolutions, dense, recurrent and attention layers and embeddings have such, also where a normalised or masked weight
    is stored in parts (its direction counts, its length does not); biases, scales of normalisation, running statistics,
    class tokens and position embeddings are not.

    >>> is_kernel("h1.weight", (4, 3)), is_kernel("h1.bias", (4,)), is_kernel("norm.weight", (4,))
    (True, False, False)
    >>> is_kernel("rnn.weight_hh_l0", (4, 4)), is_kernel("h1.parametrizations.weight.original1", (4, 3))
    (True, True)
    """
    return len(shape) >= 2 and _KERNEL.search(name) is not None and "position" not in name


def kernels(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The kernels of a state dict, in its order: by depth, in networks that declare their layers as they call them."""
    return {name: w for name, w in state.items() if is_kernel(name, w.shape) and w.dtype.kind == "f"}
