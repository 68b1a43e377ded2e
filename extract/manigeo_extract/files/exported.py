"""Networks out of ``torch.export`` (``.pt2``): the graph of one forward pass, put back into the modules it came from.

The modules bear the names of the original, take hooks, and need no ``--arch``. What was fixed when the network was
exported stays fixed, so a graph that cannot serve here is refused when it is opened.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import torch
from torch import nn

from manigeo.errors import InputError

DYNAMIC = "torch.export.export(model, (batch,), dynamic_shapes=({0: torch.export.Dim.AUTO},))"


def exported_network(file: BinaryIO) -> nn.Module:
    """The network in a ``.pt2`` file, with modules under their own names; reading it may execute what is in it.

    Raises :class:`~manigeo.errors.InputError` for a file that ``torch.export`` did not write or cannot read, a network
    exported for one batch size only, and one exported in training mode.
    """
    file.seek(0)
    try:
        program = torch.export.load(file)
        network = torch.export.unflatten(program)
    except Exception as error:
        raise InputError(
            f"cannot be read by torch.export {torch.__version__} ({type(error).__name__}: {error}); export it again"
        ) from error
    _check_batch(program)
    _check_mode(program)
    _name_classes(network)
    network.register_forward_pre_hook(_from_the_first_call)
    return network


def _check_batch(program: torch.export.ExportedProgram) -> None:
    names = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if shapes and shapes[0] and isinstance(shapes[0][0], int):
        raise InputError(f"was exported for batches of {shapes[0][0]} alone; export it with {DYNAMIC}")


def _check_mode(program: torch.export.ExportedProgram) -> None:
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    training = {str(node.target) for graph in graphs for node in graph.nodes if _is_training(node)}
    if training:
        raise InputError(f"was exported in training mode ({', '.join(sorted(training))}); export it after model.eval()")


def _is_training(node: torch.fx.Node) -> bool:
    """Return whether an operation (dropout, batch norm) has "train" or "training" set, which eval() no longer reaches."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    arguments = {argument.name: i for i, argument in enumerate(node.target._schema.arguments)}
    positions = [arguments[name] for name in ("train", "training") if name in arguments]
    return any(i < len(node.args) and node.args[i] is True for i in positions)


def _name_classes(network: nn.Module) -> None:
    """Every module bears the name of the class that was exported, by which layers are listed and chosen."""
    for module in network.modules():
        package, _, name = getattr(module, "_ty", "").rpartition(".")
        if name:
            module.__class__ = type(name, (type(module),), {"__module__": package})


def _from_the_first_call(network: nn.Module, _args: Any) -> None:
    """A module called twice may be two graphs in turn; a pass that stopped early must not leave the turn to the second.

    (So it is where the export was asked for ``preserve_module_call_signature``.)
    """
    for module in network.modules():
        if "_num_calls" in vars(module):
            vars(module)["_num_calls"] = 0
