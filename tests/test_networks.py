"""From the command line to a network with its weights: trained, untrained, of other programs, and refused."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from manigeo import open_activations
from manigeo.errors import InputError, UsageError
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.files.networks import trained_network, untrained_network
from manigeo_extract.models import IMAGE_MODELS, build_model
from tests.command_line import done, run
from tests.model_files import Trap, below, exported, lightning, saved, torchscript, trapped_export

MLP = {"input_shape": [1, 8, 8], "n_classes": 10, "depth": 1, "width": 8}
ARCH = ("--arch", "mlp", "--arch-arg", "depth=1", "--arch-arg", "width=8")
DATA = ("--data", "digits", "--permute", 0.5, "--per-class", 3)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mlp(seed: int = 3) -> nn.Module:
    return build_model("mlp", MLP, seed=seed).eval()


def extracted(*words: object) -> tuple[dict[str, np.ndarray], dict, str]:
    """Activations, provenance, and what was said on stderr but that the network, which is untrained, is near chance."""
    code, _, err = run("extract", *words, "--force")
    assert code == 0, err
    err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("warning: the network is near"))
    with open_activations("acts.h5") as acts:
        return {name: acts.rows(name, np.arange(len(acts.examples))) for name in acts.layers}, acts.provenance, err


def refused(code: int, *words: object) -> str:
    got, _, err = run("extract", *words)
    assert (got, Path("acts.h5").exists(), err.count("\n")) == (code, False, 1), err
    return err


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------------------ untrained
@pytest.mark.installed
@pytest.mark.parametrize("arch", IMAGE_MODELS)
def test_the_untrained_network_is_the_initial_checkpoint_bit_for_bit(arch):
    small = {"densenet": "depth=10", "mlp": "depth=2"}.get(arch, "width=4")
    data = ("--data", "digits", "--data-arg", "per_class=4")
    done("train", *data, "--arch", arch, "--arch-arg", small, "--epochs", 1, "--seed", 7)
    last, initial = (load_checkpoint(f"run/checkpoints/{name}.pt") for name in ("last", "epoch-0000"))
    assert (last.seed, last.arch) == (7, arch)
    network = untrained_network(arch, last.arch_args, seed=7)
    state = network.module.state_dict()
    assert list(state) == list(initial.state_dict)
    assert all(torch.equal(state[name], initial.state_dict[name]) for name in state)
    assert not all(torch.equal(state[name], last.state_dict[name]) for name in state)


def test_weights_init_gives_the_activations_of_the_initial_checkpoint_and_says_so():
    done("train", *ARCH, "--data", "digits", "--epochs", 2, "--seed", 5)
    initial, _, _ = extracted("--model", "run/checkpoints/epoch-0000.pt")
    trained, trained_says, _ = extracted("--model", "run/checkpoints/last.pt")
    untrained, says, err = extracted("--model", "run/checkpoints/last.pt", "--weights", "init")
    assert same(untrained, initial)
    assert not same(untrained, trained)
    assert err == ""
    about = ("weights", "init_seed", "checkpoint", "epoch", "metrics", "run")
    assert [says[name] for name in about] == ["init", 5, "init", 0, {}, "run"]
    assert [trained_says[name] for name in about[:4]] == ["checkpoint", None, "last", 2]
    assert says["permutation"] == trained_says["permutation"]


def test_an_untrained_network_needs_no_file_but_its_architecture_and_data():
    acts, says, _ = extracted("--weights", "init", *ARCH, *DATA, "--seed", 3)
    torch.save(mlp(seed=3).state_dict(), "same.pt")
    assert same(acts, extracted("--model", "same.pt", *ARCH, *DATA, "--seed", 3)[0])
    assert (says["model"], says["checkpoint"], says["init_seed"], says["epoch"]) == (None, "init", 3, 0)
    Path("acts.h5").unlink()
    assert "give --model FILE, or --weights init with --arch" in refused(2, *ARCH, *DATA)
    assert "the untrained network does not say its architecture: " in refused(3, "--weights", "init", *DATA)
    assert "the untrained network does not say its data set: " in refused(3, "--weights", "init", *ARCH)


def test_the_untrained_network_of_a_file_without_a_seed_has_that_of_the_command():
    torch.save(mlp().state_dict(), "own.pt")
    acts, _, err = extracted("--model", "own.pt", "--weights", "init", *ARCH, *DATA, "--seed", 4)
    assert err == "note: own.pt does not say its seed: untrained weights of --seed 4\n"
    assert same(acts, extracted("--weights", "init", *ARCH, *DATA, "--seed", 4)[0])
    torch.save(mlp(), "whole.pt")
    Path("acts.h5").unlink()
    assert "whole.pt does not say its architecture: --weights init needs --arch" in refused(
        3, "--model", "whole.pt", "--trust", "--weights", "init", *DATA
    )


# ---------------------------------------------------------------------------------------------------- of other programs
def test_every_way_to_store_one_network_gives_the_same_activations():
    model = mlp()
    state = dict(model.state_dict())
    Path("own_models.py").write_text(
        "from manigeo_extract.models import build_model\n"
        f"def net(depth=1):\n    return build_model('mlp', {{**{MLP!r}, 'depth': depth}})\n"
    )
    files = {
        "plain.pt": saved(state),
        "lightning.ckpt": saved({**lightning({}), "state_dict": below("model.", state)}),
        "ddp.pth": saved({"model_state_dict": below("module._orig_mod.", state)}),
        "hf.safetensors": safetensors.torch.save(state),
        "whole.pt": saved(model),
        "half.pt": saved({"ema": state}),
        "net.pt2": exported(model, torch.randn(3, 1, 8, 8)),
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
    expected, says, err = extracted("--model", "plain.pt", *ARCH, *DATA)
    assert err == ""
    assert [says[name] for name in ("state_key", "ema", "trust", "no_strict", "prefixes")] == [
        None,
        False,
        False,
        False,
        [],
    ]

    acts, says, err = extracted(
        "--model", "lightning.ckpt", "--arch", "own_models.py:net", "--arch-arg", "depth=1", *DATA
    )
    assert same(acts, expected)
    assert "note: lightning.ckpt: took the prefix 'model.' off the names\n" in err
    assert (says["state_key"], says["prefixes"], says["arch"]) == ("state_dict", ["model."], "own_models.py:net")

    acts, _, err = extracted("--model", "ddp.pth", *ARCH, *DATA)
    assert same(acts, expected)
    assert err == "note: ddp.pth: took the prefix 'module._orig_mod.' off all names\n"

    assert same(extracted("--model", "hf.safetensors", *ARCH, *DATA)[0], expected)

    acts, says, _ = extracted("--model", "half.pt", "--ema", *ARCH, *DATA)
    assert same(acts, expected)
    assert (says["ema"], says["state_key"]) == (True, "ema")

    acts, says, _ = extracted("--model", "whole.pt", "--trust", *DATA)
    assert same(acts, expected)
    assert (says["trust"], says["arch"]) == (True, "torch.nn.modules.container.Sequential")
    assert same(extracted("--model", "whole.pt", "--trust", *ARCH, *DATA)[0], expected)

    acts, says, _ = extracted("--model", "net.pt2", "--trust", *DATA)
    assert same(acts, expected)
    assert says["arch"] == "torch.nn.modules.container.Sequential"


def test_what_does_not_fit_is_refused_by_name_and_left_out_on_request():
    state = {name: tensor for name, tensor in mlp().state_dict().items() if not name.startswith("logits")}
    torch.save({"net": {**state, "head.weight": torch.zeros(2, 8)}}, "headless.pt")
    assert "2 missing (logits.weight, logits.bias); 1 unexpected (head.weight)" in refused(
        3, "--model", "headless.pt", *ARCH, *DATA
    )
    acts, says, err = extracted("--model", "headless.pt", "--no-strict", *ARCH, *DATA, "--seed", 9)
    assert "note: headless.pt: left out: 2 missing (logits.weight, logits.bias); 1 unexpected (head.weight)\n" in err
    assert "2 tensors of the network keep their untrained values" in err
    assert (says["not_loaded"], says["left_out"]) == (["logits.weight", "logits.bias"], ["head.weight"])
    assert (says["no_strict"], says["init_seed"]) == (True, 9)
    again, _, _ = extracted("--model", "headless.pt", "--no-strict", *ARCH, *DATA, "--seed", 9)
    assert same(acts, again)  # what was not loaded is drawn from the seed
    whole, _, _ = extracted("--weights", "init", *ARCH, *DATA, "--seed", 9)
    assert not np.array_equal(acts["h1.linear"], whole["h1.linear"])


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pt2"])
def test_a_payload_in_a_model_file_is_not_executed(here, name):
    trap = Trap(here / "sprung")
    content = {"a.pt": lambda: saved({"net": dict(mlp().state_dict()), "best": trap}), "a.pth": lambda: saved(trap),
               "a.pt2": lambda: trapped_export(trap)}  # fmt: skip
    Path(name).write_bytes(content[name]())
    for command in ("extract", "layers"):
        code, _, err = run(command, "--model", name, *ARCH, *DATA)
        assert (code, "--trust" in err, Path("sprung").exists()) == (3, True, False)
    run("layers", "--model", name, *ARCH, *DATA, "--trust")
    assert Path("sprung").exists()  # it was a trap


def test_torchscript_is_refused_in_one_line():
    Path("a.pt").write_bytes(torchscript())
    said = refused(3, "--model", "a.pt", "--trust", *ARCH, *DATA)
    assert "a.pt: is a TorchScript archive" in said
    assert "--arch" in said


def test_state_key_and_ema_reach_the_file():
    torch.save({"net": dict(mlp(seed=1).state_dict()), "best": {"net": dict(mlp().state_dict())}}, "two.pt")
    torch.save(mlp().state_dict(), "plain.pt")
    expected, _, _ = extracted("--model", "plain.pt", *ARCH, *DATA)
    acts, says, _ = extracted("--model", "two.pt", "--state-key", "best.net", *ARCH, *DATA)
    assert same(acts, expected)
    assert says["state_key"] == "best.net"
    Path("acts.h5").unlink()
    assert "no averaged weights" in refused(3, "--model", "two.pt", "--ema", *ARCH, *DATA)
    assert "give one of them" in refused(2, "--model", "two.pt", "--ema", "--state-key", "net", *ARCH, *DATA)


def test_a_network_that_has_neither_a_builder_nor_itself_in_its_file_is_refused(here):
    torch.save(mlp().state_dict(), "plain.pt")
    checkpoint = load_checkpoint("plain.pt")
    with pytest.raises(InputError, match=r"plain.pt does not say its architecture: give --arch \(and --arch-arg\)"):
        trained_network(checkpoint, None, {})
    with pytest.raises(UsageError, match="unknown model 'mpl'; did you mean 'mlp'"):
        trained_network(checkpoint, "mpl", {})


def test_a_factory_that_loads_weights_is_no_control_and_prints_to_stderr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\nprint('imported')\n"
        "def bare(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def make():\n"
        "    net = bare()\n"
        "    net.load_state_dict(torch.load('own.pt')['net'])\n"
        "    print('loaded')\n"
        "    return net\n"
    )
    torch.save({"net": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict()}, "own.pt")
    words = ("--weights", "init", "--data", "digits", "--data-arg", "per_class=4")
    for arch, same in [("own.py:make", True), ("own.py:bare", False)]:
        code, out, err = run("layers", "--model", "own.pt", "--arch", arch, *words)
        assert code == 0
        assert out.startswith("depth")
        assert ("loaded" in err, "imported" in err) == (same, True)
        assert ("no control: it has the very weights of own.pt" in err) == same
