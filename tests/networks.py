"""Small networks with any forward pass, and what hangs on a network."""

from typing import Any

from torch import Tensor, nn


class Calls(nn.Module):
    """Children by name, and a forward pass that is any function of them."""

    def __init__(self, forward: Any, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.run = forward

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def n_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())
