r"""The change of every layer over training that is due to permuted, and to unpermuted, examples (Maini et al. 2023,
*Can neural network memorization be localized?*, ICML: gradient accounting).

The gradient of a batch is the sum of what its permuted and its unpermuted examples contribute, and so is a step of SGD. With
the gradient :math:`g_k(t)` of the examples of kind k in step t, divided by the size of the whole batch,

.. math:: a_k = -\sum_t \eta_t\, g_k(t), \qquad a_{permuted} + a_{unpermuted} = \theta_T - \theta_0.

Exactly so for SGD. With momentum :math:`\mu`, :math:`\eta / (1 - \mu)` stands for :math:`\eta`: all that a gradient will
move in the end; with Adam, :math:`\eta / (\sqrt{\hat v} + \epsilon)` of each weight. What then remains, weight decay among
it, is in the table as ``accumulated_gradient_residual``. Batch norm and dropout are as in training: both gradients are of
one pass forward. Training itself is the same, bit for bit.

What is of which examples is told in the pass backward itself, where every layer multiplies what comes back for an example
by what went in for it: the permuted ones are multiplied and summed once more (:mod:`manigeo_extract.gradients.examples`).
Where examples meet in a layer, as in batch norm, its parameters and those before it are accounted to the examples *through*
which the gradient passes; elsewhere that is the same as those whose loss it is of. The first step proves that this gives
the whole gradient; of a network of which it does not (attention in one piece, parameters of one's own), the loss of permuted
examples is differentiated by itself, which takes longer. The settings of the rows tell: ``by`` "examples", or "loss".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer

from manigeo.errors import InputError, UsageError
from manigeo.results import as_table, read_results, write_results
from manigeo.runs import RunFolder, file_digest
from manigeo_extract.gradients.examples import ExampleSums
from manigeo_extract.interventions.groups import Group
from manigeo_extract.recording.layers import unwrap

NAME = "accumulated_gradients"
ALL = "(all)"
_KNOWN = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
# Parts of a gradient that are missing are no rounding: that of TF32 and of bfloat16 is below, relative to the norm.
_ROUNDING = 0.01


class GradientAccounts:
    """Accounts of what permuted and unpermuted examples have changed in each of ``groups`` of a network's parameters, from
    now on; ``kinds`` are other names of the two. The network has hooks until :meth:`close`.

    In a training loop, with a recorder:

    >>> import tempfile
    >>> from manigeo_extract import Recorder
    >>> from manigeo_extract.interventions.groups import group_layers
    >>> model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.tensor([0, 1] * 4)
    >>> permuted = torch.arange(8) < 3
    >>> recorder, optimizer = Recorder(tempfile.mkdtemp()), torch.optim.SGD(model.parameters(), lr=0.1)
    >>> accounts = GradientAccounts(model, group_layers(model, x))
    >>> recorder.step(model, 0)
    >>> for epoch in (1, 2):
    ...     losses = nn.functional.cross_entropy(model(x), y, reduction="none")
    ...     optimizer.zero_grad()
    ...     accounts.backward(losses, permuted, optimizer)  # in place of losses.mean().backward()
    ...     optimizer.step()
    ...     recorder.step(model, epoch)
    ...     accounts.record(recorder.folder, epoch)
    >>> both = accounts.change("permuted", "weight") + accounts.change("unpermuted", "weight")
    >>> torch.allclose(both, model.weight - accounts.start["weight"], atol=1e-6)
    True
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], kinds: tuple[str, str] = ("permuted", "unpermuted")
    ) -> None:
        self.kinds = kinds
        self._groups, self._steps, self.by = tuple(groups), 0, ""
        owned = [name for group in groups for name in group.parameters]
        self._parameters = {name: unwrap(model).get_parameter(name) for name in owned}
        self._trained = {name: p for name, p in self._parameters.items() if p.requires_grad}
        self.start = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._permuted, self._all = ({name: torch.zeros_like(p) for name, p in self.start.items()} for _ in range(2))
        self._sums = ExampleSums(unwrap(model))

    def close(self) -> None:
        """Take the hooks off."""
        self._sums.close()

    def check(self, optimizer: Optimizer) -> None:
        """Raise :class:`~manigeo.errors.UsageError` for an optimizer whose steps are not known as sums over examples."""
        if not isinstance(optimizer, _KNOWN):
            known = ", ".join(one.__name__ for one in _KNOWN)
            raise UsageError(
                f"gradients are accounted for with {known}, got {type(optimizer).__name__}: take one of these, or no "
                "accounts"
            )

    def backward(self, losses: Float[Tensor, " n"], permuted: Bool[Tensor, " n"], optimizer: Optimizer) -> None:
        """Call ``losses.mean().backward()`` and enter the step that ``optimizer`` is about to make.

        ``losses`` are of the examples of a batch, ``permuted`` which of them are. Call it where ``.grad`` is zero or None.

        Raises :class:`~manigeo.errors.UsageError` for an optimizer other than SGD, Adam and AdamW.
        """
        self.check(optimizer)
        self._steps += 1
        if self.by == "examples" and isinstance(optimizer, torch.optim.SGD):
            rates = _rates(optimizer)  # known beforehand: what is summed goes into the account at once
            targets = {p: (self._permuted[name], -rates[p].scale) for name, p in self._trained.items() if p in rates}
            with self._sums.into(targets, permuted, later=True):
                losses.mean().backward()
            self._enter(self._all, rates, {name: p.grad for name, p in self._trained.items()})
            return
        found = self._split(losses, permuted)
        rates = _rates(optimizer)
        self._enter(self._permuted, rates, found)
        self._enter(self._all, rates, {name: p.grad for name, p in self._trained.items()})

    def _split(self, losses: Tensor, permuted: Tensor) -> Mapping[str, Tensor]:
        """The gradients that are of permuted examples, after the pass backward that fills ``.grad``."""
        self_check = not self.by
        sums = {name: torch.zeros_like(p) for name, p in self._trained.items()}
        targets = {p: (sums[name], 1.0) for name, p in self._trained.items()} if self.by != "loss" else {}
        with self._sums.into(targets, torch.ones_like(permuted) if self_check else permuted):
            losses.mean().backward(retain_graph=self.by != "examples")
        if self.by == "examples":
            return sums
        if self_check:
            self.by = "examples" if self._is_whole(sums) else "loss"
        if not permuted.any():
            return {name: torch.zeros_like(p) for name, p in self._trained.items()}
        with self._sums.into({}, permuted):
            own = torch.autograd.grad(
                losses[permuted].sum() / len(losses), list(self._trained.values()), materialize_grads=True
            )
        return dict(zip(self._trained, own, strict=True))

    def _is_whole(self, sums: Mapping[str, Tensor]) -> bool:
        """Return whether the sums over all examples are the gradients."""
        for name, p in self._trained.items():
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            if not (sums[name] - gradient).norm() <= _ROUNDING * gradient.norm():
                return False
        return True

    @torch.no_grad()
    def _enter(
        self, account: Mapping[str, Tensor], rates: Mapping[nn.Parameter, _Rate], found: Mapping[str, Tensor | None]
    ) -> None:
        together: dict[tuple[float, bool], list[tuple[Tensor, ...]]] = {}
        for name, p in self._trained.items():
            gradient, rate = found[name], rates.get(p)
            if rate is not None and gradient is not None:
                key = (rate.scale, rate.divisor is None)
                by = () if rate.divisor is None else (rate.divisor,)
                together.setdefault(key, []).append((account[name], gradient, *by))
        for (scale, _), triples in together.items():  # one call for all parameters of a rate
            accounts, gradients, *divisors = (list(tensors) for tensors in zip(*triples, strict=True))
            if divisors:
                torch._foreach_addcdiv_(accounts, gradients, divisors[0], value=-scale)
            else:
                torch._foreach_sub_(accounts, gradients, alpha=scale)

    def change(self, kind: str, name: str) -> Tensor:
        """The change of a parameter that is due to permuted or to unpermuted examples."""
        self._sums.flush()
        permuted = self._permuted[name]
        return permuted if kind == self.kinds[0] else self._all[name] - permuted

    # ------------------------------------------------------------------------------------------------------- what is written
    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the results table, of every layer, and of ``(all)`` as one.

        For each kind ``accumulated_gradient``, the norm of the change that is due to it, and ``accumulated_gradient_along``,
        its projection on the movement of the layer (of both kinds together, about the length of that: ``movement``). And
        ``accumulated_gradient_residual``: norm of what both leave of the movement, in units of it. NaN with the flag
        ``zero_norm`` for a layer that has not moved.
        """
        per_group = [np.sum([self._products(name) for name in group.parameters], axis=0) for group in self._groups]
        names = [*(group.name for group in self._groups), ALL]
        for depth, (layer, products) in enumerate(zip(names, [*per_group, np.sum(per_group, axis=0)], strict=True)):
            place = {"layer": layer, "depth": depth, "n": self._steps}
            yield from (place | row for row in _layer_rows(products, self.kinds))

    def _products(self, name: str) -> np.ndarray:
        """Inner products of the changes of both kinds, of the movement of a parameter, and of what they leave of it."""
        moved = self._parameters[name].detach() - self.start[name]
        left = moved - self._all[name]
        vectors = torch.stack([v.flatten() for v in (*(self.change(kind, name) for kind in self.kinds), moved, left)])
        vectors = vectors.cpu().double()
        return (vectors @ vectors.T).numpy()

    def record(self, folder: RunFolder, epoch: int) -> None:
        """Write the rows after ``epoch`` to ``accumulated_gradients.csv`` in the folder of a run, once its checkpoints are
        there; rows of this epoch and of later ones are replaced.

        Raises :class:`~manigeo.errors.InputError` for a damaged table.
        """
        path = folder.path / f"{NAME}.csv"
        folder = RunFolder(folder.path)  # its identity may have been written since it was asked for
        settings = {"analysis": NAME, "by": self.by}
        place = {
            "run": folder.name,
            "run_id": folder.identity,
            "checkpoint": f"epoch-{epoch:04d}",
            "epoch": epoch,
            "fingerprint": file_digest(folder.checkpoint("last")),
            "settings": json.dumps(settings, sort_keys=True),
        }
        table = as_table([place | row for row in self.rows()])
        if path.exists():
            earlier = read_results(path)
            table = pd.concat([earlier[earlier["epoch"] < epoch], table], ignore_index=True)
        write_results(table, path, force=True)

    # ----------------------------------------------------------------------------------------------------------- going on
    def state_dict(self) -> dict[str, Any]:
        """All that the sums depend on."""
        self._sums.flush()
        sums = {"start": self.start, "permuted": self._permuted, "all": self._all}
        return {"steps": self._steps, "by": self.by, **sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of :meth:`state_dict`.

        Raises :class:`~manigeo.errors.InputError` for those of another network.
        """
        for name, sums in (("start", self.start), ("permuted", self._permuted), ("all", self._all)):
            if sums.keys() != state[name].keys():
                raise InputError("the accounts are of another network: train into another folder")
            for parameter, own in sums.items():
                own.copy_(state[name][parameter])
        self._steps, self.by = state["steps"], state["by"]


@dataclass(frozen=True, eq=False)
class _Rate:
    """Factor of a parameter by which a gradient moves it in the end, ``scale`` divided by ``divisor`` where there is one;
    the momentum of earlier gradients is theirs."""

    scale: float
    divisor: Tensor | None = None


def _rates(optimizer: Optimizer) -> dict[nn.Parameter, _Rate]:
    """The rate of every parameter in the step to come."""
    found: dict[nn.Parameter, _Rate] = {}
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.SGD):
            scale = float(group["lr"] * (1 - group["dampening"]) / (1 - group["momentum"]))
            found |= dict.fromkeys(group["params"], _Rate(scale))
        elif params := [p for p in group["params"] if p.grad is not None]:
            found |= dict(zip(params, _adam_rates(optimizer, group, params), strict=True))
    return found


@torch.no_grad()
def _adam_rates(optimizer: Optimizer, group: Mapping[str, Any], params: list[nn.Parameter]) -> list[_Rate]:
    r"""The rates in the step t to come, which the gradient of now is in, in one pass less over the weights:

    .. math:: \frac{\eta}{\sqrt{v / c^2} + \epsilon} = \frac{\eta c}{\sqrt v + \epsilon c}, \qquad c^2 = 1 - \beta_2^t
    """
    states, beta = [optimizer.state.get(p, {}) for p in params], group["betas"][1]
    coupled = 0.0 if isinstance(optimizer, torch.optim.AdamW) else group["weight_decay"]
    gradients = [p.grad.detach() for p in params if p.grad is not None]
    if coupled:
        gradients = list(torch._foreach_add(gradients, [p.detach() for p in params], alpha=coupled))
    found = [
        beta * state["exp_avg_sq"] if state else torch.zeros_like(g) for state, g in zip(states, gradients, strict=True)
    ]
    torch._foreach_addcmul_(found, gradients, gradients, value=1 - beta)
    corrections = [math.sqrt(1 - beta ** (float(state.get("step", 0)) + 1)) for state in states]
    torch._foreach_sqrt_(found)
    torch._foreach_add_(found, [group["eps"] * c for c in corrections])
    return [_Rate(float(group["lr"]) * c, divisor) for c, divisor in zip(corrections, found, strict=True)]


def _layer_rows(products: np.ndarray, kinds: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of a layer from the inner products of permuted change, unpermuted change, movement, and what is left of it."""
    *changed, moved, left = np.sqrt(np.diag(products)).tolist()
    nothing = {"value": math.nan, "flag": "zero_norm"}
    for k, kind in enumerate(kinds):
        along = {"value": products[k, 2] / moved} if moved else nothing
        yield {"kind": kind, "metric": "accumulated_gradient", "value": changed[k]}
        yield {"kind": kind, "metric": "accumulated_gradient_along"} | along
    yield {"kind": "", "metric": "movement", "value": moved}
    yield {"kind": "", "metric": "accumulated_gradient_residual"} | ({"value": left / moved} if moved else nothing)
