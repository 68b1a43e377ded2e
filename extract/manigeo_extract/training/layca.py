r"""Layca: an optimiser that sets by how much each layer turns in a step (Carbonnelle & De Vleeschouwer 2019, algorithm 1).

Of the step s that any other optimiser would take, only the direction across the layer's weights w is kept:

.. math:: s \leftarrow s - \frac{s \cdot w}{w \cdot w}\, w, \quad s \leftarrow s\, \frac{|w|}{|s|}, \quad
          w \leftarrow w + \rho s, \quad w \leftarrow w\, \frac{|w_0|}{|w|} ,

so that every step turns the layer by an angle of tangent :math:`\rho`, its learning rate, at the norm it began with. It
applies to kernels alone (:func:`manigeo.weights.is_kernel`): biases and normalisation have no direction to speak of, and
follow the other optimiser, or stay as they are, as the authors had it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from manigeo.errors import UsageError, check_choice
from manigeo.weights import is_kernel

OTHERS = ("inner", "frozen")


def layer_rates(rho: float, a: float, n_layers: int) -> list[float]:
    r"""Rates from the first layer to the last: equal at a = 0; at a > 0 the last, at a < 0 the first layers turn most.

    .. math:: \rho_l = (1 - a)^{5 (L - 1 - l) / (L - 1)} \rho \;(a > 0), \qquad (1 + a)^{5 l / (L - 1)} \rho \;(a \le 0)

    >>> [round(rate, 3) for rate in layer_rates(0.1, 0.5, 3)]
    [0.003, 0.018, 0.1]
    """
    if not -1 <= a <= 1:
        raise UsageError(f"a must lie between -1 (the first layers turn most) and 1 (the last), got {a}")
    place = [layer / max(n_layers - 1, 1) for layer in range(n_layers)]
    return [rho * ((1 - a) ** (5 * (1 - x)) if a > 0 else (1 + a) ** (5 * x)) for x in place]


class Layca(Optimizer):
    r"""Turns each kernel among ``named_parameters`` by its rate in the direction of ``inner``, an optimiser of all of them.

    Each kernel is a parameter group of its own, from the first layer to the last, whose ``lr`` is its rate :math:`\rho_l`:
    the tangent of its angle per step. Schedulers of torch work on these; a rate of the inner optimiser matters to the
    ``others`` only, which follow it (``"inner"``) or are ``"frozen"``. A kernel that the inner optimiser does not move
    stays where it is.

    Raises :class:`~manigeo.errors.UsageError` where no parameter is a kernel, or a kernel is zero and has no direction.

    >>> model = nn.Linear(4, 3)
    >>> inner = torch.optim.Adam(model.parameters())
    >>> optimizer = Layca(model.named_parameters(), inner, rho=0.1)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.1]
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        inner: Optimizer,
        *,
        rho: float = 3**-3,
        a: float = 0.0,
        others: str = "inner",
    ) -> None:
        check_choice("others", others, OTHERS)
        found = dict(named_parameters)
        chosen = {name: p for name, p in found.items() if is_kernel(name, tuple(p.shape))}
        empty = [name for name, p in chosen.items() if not p.detach().any()]
        if not chosen or empty:
            what = f"layers {empty} are all zero" if empty else f"there is no kernel among {list(found)}"
            raise UsageError(f"Layca turns the weights of layers, and {what}")
        self.inner = inner
        self._frozen = [p for name, p in found.items() if name not in chosen] if others == "frozen" else []
        rates = layer_rates(rho, a, len(chosen))
        groups = [
            {"params": [p], "lr": rate, "rate": rate, "name": name, "norm": float(_norm(p))}
            for (name, p), rate in zip(chosen.items(), rates, strict=True)
        ]
        super().__init__(groups, {"lr": rho})

    def set_factor(self, factor: float) -> None:
        """Rates at ``factor`` times those they began with: for schedules of one's own."""
        for group in self.param_groups:
            group["lr"] = factor * group["rate"]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the inner optimiser, of which each kernel takes the direction."""
        kernels = [(group["params"][0], group["lr"], group["norm"]) for group in self.param_groups]
        before = [p.clone() for p, _, _ in kernels]
        kept = [p.clone() for p in self._frozen]
        loss = self.inner.step(closure)
        for (p, rate, norm), w in zip(kernels, before, strict=True):
            p.copy_(_turned(w, p - w, rate, norm))
        for p, w in zip(self._frozen, kept, strict=True):
            p.copy_(w)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Rates and initial norms, and the inner optimiser's state under ``"inner"``."""
        return super().state_dict() | {"inner": self.inner.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state_dict["inner"])
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "inner"})


def _norm(w: Tensor) -> Tensor:
    return torch.linalg.vector_norm(w.detach(), dtype=torch.float64)


def _turned(w: Tensor, step: Tensor, rate: float, norm: float) -> Tensor:
    """w turned by an angle of tangent ``rate`` towards the step, at length ``norm``; in float64."""
    w, s = w.double(), step.double()
    s = s - (s * w).sum() / (w * w).sum() * w
    length = _norm(s)
    if length > 0:
        w = w + rate * _norm(w) / length * s
    return w * (norm / _norm(w))


@contextmanager
def recorded_rates(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> Iterator[list[list[float]]]:
    r"""Tangents of the angle by which each of ``parameters`` turns in every step of ``optimizer`` inside the block.

    .. math:: \tan \theta = \sqrt{(1 - d)^{-2} - 1}, \qquad d = 1 - \cos(w^{t-1}, w^t)

    One list per step, one number per parameter: :func:`replay_rates` gives them to Layca (the authors' AdaptCopy).
    """
    rates: list[list[float]] = []
    before: list[Tensor] = []

    def remember(*_: Any) -> None:
        before[:] = [p.detach().clone() for p in parameters]

    def measure(*_: Any) -> None:
        rates.append([_tangent(w, p.detach()) for w, p in zip(before, parameters, strict=True)])

    hooks = optimizer.register_step_pre_hook(remember), optimizer.register_step_post_hook(measure)
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()


def replay_rates(optimizer: Layca, rates: Sequence[float]) -> None:
    """The rates of the next step, one for each kernel, as :func:`recorded_rates` has them."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _tangent(start: Tensor, end: Tensor) -> float:
    """Tangent of the angle between two states: the part of ``end`` across ``start``, divided by the part along it."""
    a, b = start.double().flatten(), end.double().flatten()
    along = (a @ b) / (a @ a)
    return float(_norm(b - along * a) / (along * _norm(a)))
