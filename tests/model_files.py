"""Model files as other programs write them, made by the tests: of a small network, and some with a payload."""

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BATCH = torch.linspace(-1, 1, 5 * 36).reshape(5, 1, 6, 6)


def network(seed: int = 0) -> nn.Sequential:
    """With a convolution, a norm with buffers, an operation in place, and dropout."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 4))
    net.insert(3, nn.Dropout(0.5))
    net(torch.randn(7, 1, 6, 6))  # moves the running statistics
    return net.eval()


NET = network()
STATE = dict(NET.state_dict())


def below(prefix: str, state: Mapping[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def lightning(hparams: Any) -> dict[str, Any]:
    """The keys of Lightning 2.6 ``save_checkpoint``."""
    return {
        "epoch": 4, "global_step": 500, "pytorch-lightning_version": "2.6.6", "state_dict": below("model."),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [],
        "hparams_name": "args", "hyper_parameters": hparams,
    }  # fmt: skip


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still about
        torch.jit.save(torch.jit.trace(NET, BATCH), buffer)
    return buffer.getvalue()


def exported(net: nn.Module = NET, batch: Tensor = BATCH, *, dynamic: bool = True, **options: Any) -> bytes:
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        torch.export.save(torch.export.export(net, (batch,), dynamic_shapes=shapes, **options), buffer)
    return buffer.getvalue()


def with_member(content: bytes, name: str, new: bytes) -> bytes:
    """The archive with another content of one member."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as archive:
        for member in old.namelist():
            archive.writestr(member, new if member.endswith(name) else old.read(member))
    return out.getvalue()


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def trapped_export(trap: Trap) -> bytes:
    """An export one of whose weights is declared as pickled, as torch writes it for some subclasses of tensors."""
    content = exported()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(n for n in archive.namelist() if n.endswith("model_weights_config.json"))
        config = json.loads(archive.read(name))
    weight = next(iter(config["config"].values()))
    weight["use_pickle"] = True
    content = with_member(content, "model_weights_config.json", json.dumps(config).encode())
    return with_member(content, weight["path_name"], saved(trap))
