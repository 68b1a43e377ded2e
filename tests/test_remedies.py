"""Remedies that messages about foreign files name are carried out, and work."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from manigeo.errors import ManigeoError
from manigeo_extract.files.checkpoints import load_checkpoint, restore_model
from tests.command_line import run
from tests.model_files import NET, STATE, below, network, saved, torchscript
from tests.test_fitting import sharded

Say = Callable[[Path], Any]


def loaded(path: Path, *, strict: bool = True, **reading: Any) -> None:
    restore_model(load_checkpoint(path, **reading), network(seed=1), strict=strict)


def options_in(said: str) -> dict[str, Any]:
    """The options of the command line that a message tells to give."""
    found: dict[str, Any] = {}
    if match := re.search(r"--state-key (\S+)", said):
        found["state_key"] = match[1]
    if "--trust" in said:
        found["trust"] = True
    if "--no-strict" in said:
        found["strict"] = False
    return found


BY_OPTION: dict[str, Any] = {
    "two sets of weights": {"generator": STATE, "critic": STATE},
    "weights two levels down, twice": {"a": {"net": STATE}, "b": {"net": STATE}},
    "a pickled network": NET,
    "a pickled network under a key": {"model": NET, "epoch": 3},
    "tensors of a loss beside them": {**STATE, "loss.weight": torch.zeros(2)},
    "Lightning, with a loss": {"state_dict": {**below("model."), "criterion.w": torch.zeros(2)}},
    "a tensor less": {name: tensor for name, tensor in STATE.items() if name != "5.bias"},
    "another number of classes": {**STATE, "5.weight": torch.zeros(7, 48), "5.bias": torch.zeros(7)},
}


@pytest.mark.parametrize("kind", BY_OPTION)
def test_a_refused_file_is_read_with_the_options_that_the_message_names(kind, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(saved(BY_OPTION[kind]))
    with pytest.raises(ManigeoError) as caught:
        loaded(path)
    said = str(caught.value)
    assert "\n" not in said
    assert options_in(said), said
    loaded(path, **options_in(said))


def saved_as_floats(path: Path) -> Path:
    state = torch.load(path, weights_only=True)
    torch.save({n: t.float() if n == "0.weight" else t for n, t in state.items()}, path)
    return path


def state_of_script(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecation
        torch.save(dict(torch.jit.load(path).state_dict()), path.with_name("out.pt"))
    return path.with_name("out.pt")


def an_index(folder: Path) -> Path:
    index = sharded(folder, state=dict(STATE))
    for name in ("a", "b"):
        (folder / f"{name}.index.json").write_bytes(index.read_bytes())
    index.unlink()
    return folder


def a_folder(folder: Path) -> Path:
    (folder / "weights.pt").write_bytes(saved(STATE))
    return folder


def a_file(content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "a.pt").write_bytes(content() if callable(content) else saved(content))
        return folder / "a.pt"

    return write


# what is wrong -> how the file is made, what the message tells to do, and what is done then
BY_HAND: dict[str, tuple[Say, str, Callable[[Path], Path]]] = {
    "packed integers": (
        a_file({**STATE, "0.weight": (STATE["0.weight"] * 8).to(torch.int8)}), "save the weights as floating",
        saved_as_floats,
    ),
    "TorchScript": (a_file(torchscript), r"save torch.jit.load\(...\).state_dict\(\)", state_of_script),
    "several indexes": (an_index, "give one: a.index.json", lambda folder: folder / "a.index.json"),
    "a folder": (a_folder, "give one of those in it: weights.pt", lambda folder: folder / "weights.pt"),
    "a tensor alone": (
        a_file(torch.ones(2)), r"save model.state_dict\(\) with torch.save",
        lambda path: (torch.save(NET.state_dict(), path), path)[1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BY_HAND)
def test_what_a_message_tells_to_do_makes_the_file_readable(kind, tmp_path):
    make, said, done = BY_HAND[kind]
    path = make(tmp_path)
    with pytest.raises(ManigeoError, match=said):
        loaded(path)
    loaded(done(path))


def test_commands_name_remedies_that_they_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\n"
        "def net(n=10):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, n))\n"
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 7))
    torch.save({"generator": net.state_dict(), "critic": {"w": torch.zeros(2, 2)}}, "a.pt")
    words: list[str] = ["layers", "--model", "a.pt"]
    told = []
    for _ in range(6):  # as a user would go on from message to message
        code, _, said = run(*words)
        told.append(said.strip().splitlines()[-1])
        if code == 0:
            break
        for pattern, more in {
            r"give --state-key (\S+)": None,
            r"give --data ": ["--data", "digits", "--permute", "0"],
            r"give --arch ": ["--arch", "nets.py:net"],
            r"--no-strict takes what fits": ["--no-strict"],
        }.items():
            if match := re.search(pattern, said):
                words += more or ["--state-key", match[1]]
                break
    assert code == 0, told
    assert len(told) == 5  # each was a step
