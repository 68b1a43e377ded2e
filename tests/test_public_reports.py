"""Public reports of weights that do not load and of activations that hooks miss: each made small, and what comes of it here.

The page ``docs/guide/public_reports.md`` lists the same threads.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from manigeo.errors import InputError
from manigeo_extract.files.checkpoints import load_checkpoint, restore_model
from manigeo_extract.recording.census import take_census
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import select_layers
from manigeo_extract.recording.tracing import with_functions
from tests.model_files import STATE, below, lightning, network, saved, with_member

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "public_reports.md"


def drawn(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with other weights, of a seed."""
    torch.manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net.eval()


def two(out: int = 3, seed: int = 7) -> nn.Module:
    return drawn(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, out)), seed)


def untrained() -> nn.Module:
    return network(seed=1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.lm_head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.lm_head.weight = self.wte.weight


def on_cuda() -> bytes:
    """What a machine with a GPU saves: its tensors say where they were."""
    content = saved(STATE)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickled = archive.read("archive/data.pkl")
    assert pickled.count(b"X\x03\x00\x00\x00cpu") == 1
    return with_member(content, "data.pkl", pickled.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))


class Normaliser:
    """An object of a program that pickles it beside the weights."""


def uncounted(net: nn.Module) -> nn.Module:
    """Batch norm as torch 0.4.0 had it."""
    net[1].num_batches_tracked = None
    return net


def quantised(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still about
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


def spectral(n: int = 1) -> nn.Module:
    return drawn(nn.Sequential(*(nn.utils.spectral_norm(nn.Linear(4, 4)) for _ in range(n))))


# ------------------------------------------------------------------------------------------------------------ weights
ONE, OTHER, WIDER, SPECTRAL = two(seed=0), two(seed=1), two(10), spectral()
MOCO = {**below("module.encoder_q.", ONE.state_dict()), **below("module.encoder_k.", OTHER.state_dict())}
MOCO |= {"module.queue": torch.zeros(2, 5), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
AVERAGES = {"initted": torch.tensor(True), "step": torch.tensor(3)}
AVERAGES |= below("online_model.", ONE.state_dict()) | below("ema_model.", OTHER.state_dict())
SHADOWS = {"decay": 0.9, "shadow_params": list(OTHER.parameters()), "collected_params": None}
ADAPTER = {f"base_model.model.0.lora_{x}.weight": torch.zeros(2, 4) for x in "AB"}
FLAT = {"_fsdp_wrapped_module._flat_param": torch.zeros(35)}
RENAMED = {"norm.1.weight": torch.ones(4), "norm.1.bias": torch.ones(4)}
GAMMA = {"0.weight": torch.ones(4, 4), "0.bias": torch.ones(4), "1.gamma": torch.ones(4), "1.beta": torch.ones(4)}


@dataclass(frozen=True)
class Weights:
    """A file, the network it is for, and the tensors that the network then has; or what the refusal says, after which the
    remedy, if it names one, gives these tensors."""

    content: Any
    network: Callable[[], nn.Module] = untrained
    expected: Callable[[], Any] = lambda: STATE
    refused: str = ""
    remedy: dict[str, Any] | None = None


def second(state: dict[str, Tensor]) -> Callable[[], Any]:
    return lambda: state


WEIGHTS: dict[str, Weights] = {
    "pytorch/pytorch#3805": Weights({"epoch": 3, "state_dict": below("module.")}),
    "karpathy/nanoGPT#325": Weights({"model": below("_orig_mod."), "iter_num": 5, "config": {"n_layer": 2}}),
    "huggingface/pytorch-image-models#2003": Weights({"state_dict": below("_orig_mod.module."), "arch": "resnet"}),
    "Lightning-AI/pytorch-lightning#20233": Weights({**lightning({}), "state_dict": below("model._orig_mod.")}),
    "ashleve/lightning-hydra-template#447": Weights({**lightning({"lr": 0.1}), "state_dict": below("gnn.")}),
    "deepspeedai/DeepSpeed#4628": Weights({"module": below("module."), "ds_config": {}, "param_shapes": [{}]}),
    "pytorch/pytorch#117446": Weights({f"_fsdp_wrapped_module.{k}": v for k, v in STATE.items()}),
    "pytorch/pytorch#77224": Weights({k.replace("5.", "5._checkpoint_wrapped_module."): v for k, v in STATE.items()}),
    "YINYIPENG-EN/Pruning_for_YOLOX#5": Weights({"start_epoch": 1, "model": STATE, "optimizer": {}, "amp": {}}),
    "google-deepmind/gemma#8": Weights(
        safetensors.torch.save({"wte.weight": torch.ones(9, 4)}), Tied,
        second({"wte.weight": torch.ones(9, 4), "lm_head.weight": torch.ones(9, 4)}),
    ),
    "huggingface/transformers#38870": Weights(
        safetensors.torch.save({"lm_head.weight": torch.ones(9, 4)}), Tied,
        second({"wte.weight": torch.ones(9, 4), "lm_head.weight": torch.ones(9, 4)}),
    ),
    "jackaduma/CycleGAN-VC2#10": Weights(on_cuda()),
    "MIC-DKFZ/nnUNet#2681": Weights(
        {"network_weights": STATE, "best_ema": np.float64(0.5), "current_epoch": 3}
    ),
    "sktime/pytorch-forecasting#1998": Weights(
        {**lightning({"normalizer": Normaliser()}), "state_dict": STATE},
        refused=r"holds pickled objects \(.*Normaliser\), .*; save model.state_dict\(\) .*--trust", remedy={"trust": True},
    ),
    "KexianHust/Structure-Guided-Ranking-Loss#6": Weights(
        STATE, lambda: uncounted(untrained()), lambda: {k: v for k, v in STATE.items() if "tracked" not in k},
        r"1 unexpected \(1.num_batches_tracked\); all .* is there: --no-strict", {"strict": False},
    ),
    "gligen/GLIGEN#67": Weights(
        {**STATE, "text_model.embeddings.position_ids": torch.arange(5)[None]},
        refused=r"1 unexpected \(text_model.embeddings.position_ids\); all .* is there: --no-strict",
        remedy={"strict": False},
    ),
    "moskomule/senet.pytorch#73": Weights(
        WIDER.state_dict(), lambda: two(seed=1), lambda: {**OTHER.state_dict(), **below("0.", WIDER[0].state_dict())},
        r"2 of another shape \(1.weight \(10, 4\) instead of \(3, 4\), .*--no-strict takes what fits", {"strict": False},
    ),
    "facebookresearch/moco#84": Weights(
        {"epoch": 200, "state_dict": MOCO}, two, lambda: ONE.state_dict(),
        r"several copies of the network: --state-key state_dict.encoder_k or state_dict.encoder_q takes one",
        {"state_key": "state_dict.encoder_q"},
    ),
    "lucidrains/ema-pytorch#11": Weights(
        AVERAGES, two, lambda: OTHER.state_dict(),
        r"several copies of the network: --state-key ema_model or online_model takes one", {"state_key": "ema_model"},
    ),
    "facebookresearch/fairchem#284": Weights(
        {"state_dict": ONE.state_dict(), "ema": SHADOWS}, two, lambda: ONE.state_dict(),
    ),
    "pytorch/pytorch#21251": Weights(
        SPECTRAL.state_dict(), lambda: spectral(2), lambda: SPECTRAL.state_dict(),
        r"missing \(1.weight_orig, .*--no-strict takes what fits", {"strict": False},
    ),
    "JIA-Lab-research/LISA#116": Weights(ADAPTER, two, refused=r"low-rank changes of a network: .* merge_and_unload\(\)"),
    "facebookresearch/dinov2#544": Weights(FLAT, two, refused=r"flat parts of FSDP: .* StateDictType.FULL_STATE_DICT"),
    "huggingface/transformers#16211": Weights(
        quantised(two()).state_dict(), two, refused="weights of a quantised network: give a factory of that one",
    ),
    "DeepMotionAIResearch/DenseASPP#9": Weights(
        RENAMED, lambda: nn.Sequential(nn.LayerNorm(4)),
        refused=r"2 missing \(0.weight, 0.bias\); 2 unexpected \(norm.1.weight, norm.1.bias\); is this the architecture",
    ),
    "huggingface/transformers#11809": Weights(
        GAMMA, lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
        refused=r"2 missing \(1.weight, 1.bias\); 2 unexpected \(1.gamma, 1.beta\); is this the architecture",
    ),
}  # fmt: skip


@pytest.mark.parametrize("thread", WEIGHTS)
def test_weights_of_a_report_are_the_very_ones_or_refused_with_a_way_out(thread, tmp_path):
    case, path = WEIGHTS[thread], tmp_path / "weights"
    path.write_bytes(case.content if isinstance(case.content, bytes) else saved(case.content))
    if case.refused:
        with pytest.raises(InputError, match=case.refused) as refused:
            restore_model(load_checkpoint(path), case.network())
        assert "\n" not in str(refused.value)
        if case.remedy is None:
            return
    options = dict(case.remedy or {})
    strict = options.pop("strict", True)
    net = case.network()
    assert not all(torch.equal(net.state_dict()[name], tensor) for name, tensor in case.expected().items())
    restore_model(load_checkpoint(path, **options), net, strict=strict)
    loaded = net.state_dict()
    for name, tensor in case.expected().items():
        assert torch.equal(loaded[name], tensor), name


# ------------------------------------------------------------------------------------------------------------- layers
class Module(nn.Module):
    """Parts by name, and a function of them and the input."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


SEQUENCES, VECTORS = torch.randn(3, 5, 8), torch.randn(3, 8)


def encoder(n: int = 1) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), n)


def packed(net: Any, x: Tensor) -> Tensor:
    _, (h, _) = net.lstm(pack_padded_sequence(x, torch.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False))
    return net.fc(h[-1])


def in_place() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 3), nn.ReLU(inplace=True))


def reused(net: Any, x: Tensor) -> Tensor:
    return net.relu(net.b(net.relu(net.a(x))))


def functional(net: Any, x: Tensor) -> Tensor:
    return F.relu(net.b(F.relu(net.a(x))))


def ab(run: Callable[..., Any], **more: nn.Module) -> nn.Module:
    return Module(run, a=nn.Linear(8, 6), b=nn.Linear(6, 4), **more)


@dataclass(frozen=True)
class Layers:
    """A network, a batch, the layers that are there among others, what they hold, and what is said of those left out."""

    network: Callable[[], nn.Module]
    batch: Tensor
    expected: Callable[[Any, Tensor], dict[str, Tensor]]
    left_out: tuple[str, ...] = ()
    functions: bool = field(default=False)


LAYERS: dict[str, Layers] = {
    "pytorch/pytorch#128413": Layers(
        lambda: encoder().layers[0], SEQUENCES,
        lambda net, x: {"self_attn": (y := net.self_attn(x, x, x)[0]), "linear1": net.linear1(net.norm1(x + y))},
    ),
    "pytorch/pytorch#132700": Layers(
        lambda: encoder(2), SEQUENCES, lambda net, x: {"layers.0.norm2": net.layers[0](x), "layers.1.norm2": net(x)},
    ),
    "pytorch/pytorch#78109": Layers(
        lambda: Module(lambda m, x: m.attention(x, x, x)[0], attention=nn.MultiheadAttention(8, 2, batch_first=True)),
        SEQUENCES, lambda net, x: {"attention": net.attention(x, x, x)[0]},
    ),
    "sksq96/pytorch-summary#130": Layers(
        lambda: Module(lambda m, x: m.fc(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(8, 6, batch_first=True), fc=nn.Linear(6, 3)),
        SEQUENCES, lambda net, x: {"lstm": net.lstm(x)[0], "lstm:h_l0": net.lstm(x)[1][0][0], "fc": net(x)},
    ),
    "meta-pytorch/captum#1528": Layers(
        lambda: Module(packed, lstm=nn.LSTM(8, 6, batch_first=True), fc=nn.Linear(6, 3)), SEQUENCES,
        lambda net, x: {"lstm:h_l0": torch.stack([net.lstm(x[i : i + 1, :n])[1][0][0, 0] for i, n in enumerate((2, 5, 3))])},
    ),
    "meta-pytorch/captum#156": Layers(in_place, VECTORS, lambda net, x: {"0": net[0](x), "1": net[0](x).relu()}),
    "ViCCo-Group/thingsvision#44": Layers(in_place, VECTORS, lambda net, x: {"2": net[2](net[0](x).relu())}),
    "openai/CLIP#239": Layers(
        lambda: ab(reused, relu=nn.ReLU()), VECTORS,
        lambda net, x: {"relu": net.a(x).relu(), "relu#1": net.b(net.a(x).relu()).relu()},
    ),
    "kuangliu/pytorch-cifar#25": Layers(
        lambda: ab(functional), VECTORS, lambda net, x: {"relu": net.a(x).relu(), "relu#1": net(x)}, functions=True,
    ),
    "pytorch/pytorch#110285": Layers(
        lambda: Module(lambda m, x: m.a(x.bfloat16()), a=nn.Linear(8, 6).bfloat16()), VECTORS,
        lambda net, x: {"a": net(x).float()},
    ),
    "huggingface/transformers#7760": Layers(
        lambda: ab(lambda m, x: {"loss": None, "logits": m.b(m.a(x)), "hidden_states": (m.a(x),)}), VECTORS,
        lambda net, x: {"output": net.b(net.a(x))},
    ),
    "facebookresearch/simsiam#8": Layers(
        lambda: ab(lambda m, x: m.b(m.a(x)), predictor=nn.Linear(2, 2)), VECTORS, lambda net, x: {"b": net(x)},
        ("predictor (Linear)", "is not called by the forward pass"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("thread", LAYERS)
def test_layers_of_a_report_hold_what_the_modules_give(thread):
    case = LAYERS[thread]
    net = drawn(case.network())
    traced = with_functions(net, case.batch[:2]) if case.functions else net
    census = take_census(traced, case.batch)
    expected = case.expected(net, case.batch)  # with gradients, without which torch skips modules of its own
    layers = select_layers(census.layers, list(expected))
    with record_layers(traced, layers) as forward:
        found = forward(case.batch)
    for name, tensor in expected.items():
        # attention and recurrent modules may sum in another order: a few units of the last place of float32
        torch.testing.assert_close(found[name].float(), tensor.detach(), rtol=1e-5, atol=1e-5)
    assert all(words in "".join(census.remarks) for words in case.left_out)


# --------------------------------------------------------------------------------------------------------------- page
@pytest.mark.skipif(not PAGE.is_file(), reason="needs the folder docs/ of a checkout")
def test_the_page_lists_these_threads_and_what_came_of_them():
    rows = re.findall(r"^\| \[(\S+)\]\(\S+\) \|.*\| (\w+)[^|]*\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(dict(rows)) >= 25
    results = {thread: "refused" if case.refused else "loaded" for thread, case in WEIGHTS.items()}
    assert dict(rows) == results | dict.fromkeys(LAYERS, "recorded")
