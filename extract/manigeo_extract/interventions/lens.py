r"""Logit lens: what the network's own head makes of each block.

Blocks beside shortcuts add to one stream :math:`x_1, \dots, x_L`, which the head h, all that follows the last block, reads.
The answer of block l, with the blocks behind it passed over, is

.. math:: \hat y_l = \arg\max_c h(x_l)_c ;

that of the last block is the network's own. Of examples that memorization alone can answer, the first block from which on it
is their label says where in the network the answer is there to be read. Nothing is fitted; for a linear classifier that is
trained at each layer see :mod:`manigeo_extract.interventions.utilisation` and ``manigeo separability``.

nostalgebraist (2020), Interpreting GPT: the logit lens; Geva, Caciularu, Wang, Goldberg (2022), Transformer feed-forward
layers build predictions by promoting concepts in the vocabulary space, EMNLP.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from manigeo.errors import UsageError
from manigeo.faces.progress import bar
from manigeo.kinds import VALIDATION
from manigeo.manifolds import standard_error
from manigeo.per_example.depths import settled_from
from manigeo.per_example.table import example_rows
from manigeo.results import as_table
from manigeo_extract.batches import Batch, like_parameters
from manigeo_extract.interventions.scoring import Examiner, Row
from manigeo_extract.recording.layers import Layer, eagerly, evaluating, list_layers, unwrap, without_gradients
from manigeo_extract.recording.next_token import answers
from manigeo_extract.training.evaluation import HasInputs, answered

_NEARLY_ZERO = 1e-12  # times a weight: nothing beside what a shortcut hands on


def find_blocks(model: nn.Module, batch: Batch) -> list[Layer]:
    """The longest series of blocks of the network: modules in one module, of one class, that return one shape, of which
    all but the first return what they were given where their weights are nearly zero: they stand beside shortcuts. Of
    equally long series the last. Modules within a block, such as experts, make none.

    >>> from manigeo_extract.models import build_model
    >>> net = build_model("resmlp", {"input_shape": (1, 4, 4), "n_classes": 3, "depth": 2})
    >>> [block.name for block in find_blocks(net, torch.zeros(2, 1, 4, 4))]
    ['block1', 'block2']

    Raises :class:`~manigeo.errors.UsageError` where no two modules are such.
    """
    root = unwrap(model)
    series: dict[tuple[str, str, tuple[int, ...]], list[Layer]] = {}
    modules = {name: module for name, module in root.named_modules() if any(True for _ in module.parameters())}
    for layer in list_layers(model, batch):
        if layer.batched and layer.calls == 1 and not layer.leaf and layer.name in modules:
            beside = layer.name.rpartition(".")[0]
            series.setdefault((beside, layer.module_class, layer.feature_shape), []).append(layer)
    several = [
        blocks for blocks in series.values()
        if len(blocks) > 1 and _beside_shortcuts(root, [modules[block.name] for block in blocks[1:]], batch)
    ]  # fmt: skip
    inside = tuple(f"{block.name}." for blocks in several for block in blocks)
    outer = [blocks for blocks in several if not blocks[0].name.startswith(inside)]
    if not outer:
        raise UsageError(
            "the network has no two blocks beside shortcuts, of one class and shape, such as those of gpt, vit or resmlp: "
            "its head can read its last layer alone; manigeo reinit --utilisation puts a trained probe on each"
        )
    return max(reversed(outer), key=len)


def _beside_shortcuts(root: nn.Module, blocks: Sequence[nn.Module], batch: Batch) -> bool:
    """True where the stream goes through all blocks unchanged while their weights are nearly zero; zero itself has no
    direction, which a normalised weight needs. Blocks that return no tensor are not looked at."""
    given: dict[nn.Module, list[Tensor]] = {}
    unchanged = set(blocks)

    def before(module: nn.Module, args: tuple[object, ...], named: dict[str, object]) -> None:
        given[module] = [x.clone() for x in (*args, *named.values()) if isinstance(x, Tensor)]

    def after(module: nn.Module, args: object, output: object) -> None:
        stream = _first(output)
        if isinstance(stream, Tensor) and not any(
            x.shape == stream.shape and torch.allclose(x, stream) for x in given.pop(module)
        ):
            unchanged.discard(module)

    weights = {p: p.data for block in blocks for p in block.parameters() if p.is_floating_point()}
    hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(after) for block in blocks]
    try:
        for p, data in weights.items():
            p.data = data * _NEARLY_ZERO
        with evaluating(root), eagerly(root), without_gradients():
            answers(root, like_parameters(root, batch))
    finally:
        for p, data in weights.items():
            p.data = data
        for hook in hooks:
            hook.remove()
    return len(unchanged) == len(blocks)


def lens_answers(
    model: nn.Module, examiner: Examiner, blocks: Sequence[Layer], *, progress: bool = False
) -> Int[np.ndarray, "blocks examples"]:
    """The answer that the network's head gives to each of its blocks, for every example looked at."""
    root, found = unwrap(model), []
    stream = _Stream([root.get_submodule(block.path) for block in blocks])
    total = -(-len(examiner.rows) // examiner.batch_size)
    with (
        evaluating(root),
        eagerly(root),
        without_gradients(),
        stream,
        bar(total, "lens", "batch", shown=progress) as told,
    ):
        for batch in examiner.batches():
            given = [logits.argmax(dim=1) for logits in stream.read(root, like_parameters(root, batch))]
            found.append(torch.stack(given).cpu())
            told.update()
    answers: np.ndarray = torch.cat(found, dim=1).numpy()
    return answers


class _Stream:
    """Forward hooks that keep what each of some modules returns, and put what one has returned in place of the last's."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._kept: list[Tensor] = []
        self._shown: Tensor | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> _Stream:
        *others, last = self._modules
        self._hooks = [module.register_forward_hook(self._keep) for module in others]
        self._hooks.append(last.register_forward_hook(self._show))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def read(self, root: nn.Module, batch: Batch) -> Iterator[Tensor]:
        """The scores that the head gives to each module's output: those of the last are the network's own."""
        self._kept, self._shown = [], None
        own = answered(root, batch)
        streams, self._kept = self._kept, []
        for self._shown in streams:
            yield answered(root, batch)
        yield own

    def _keep(self, module: nn.Module, args: object, output: object) -> None:
        if self._shown is None:
            self._kept.append(_stream_of(output).clone())  # what follows may change it in place

    def _show(self, module: nn.Module, args: object, output: object) -> object:
        if self._shown is None:
            return None
        if isinstance(output, Tensor):
            return self._shown
        assert isinstance(output, tuple)  # or _keep would have refused the one of the same class
        return (self._shown, *output[1:])


def _first(output: object) -> object:
    return output[0] if isinstance(output, tuple) and output else output


def _stream_of(output: object) -> Tensor:
    """The tensor that blocks hand on: what they return, or the first of several."""
    first = _first(output)
    if not isinstance(first, Tensor):
        raise UsageError(
            f"the blocks return a {type(output).__name__}, expected a tensor, or a tuple that begins with one: give a "
            "network whose blocks hand on one stream"
        )
    return first


def lens_tables(
    model: nn.Module,
    data: HasInputs,
    examples: pd.DataFrame,
    blocks: Sequence[Layer],
    *,
    length: int | None = None,
    most: int | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
    seed: int = 0,
    place: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers that the head reads out of each block: as a results table, and of single examples as a table of these.

    For each block and kind ``lens_accuracy``, the share of the examples that are answered by their label there; of
    sequences of this ``length`` that are looked at whole also ``lens_exact``, the share of suffixes that are answered token
    by token. For each example ``lens_depth``: the block, counted from 0, from which on the answer is the label that it was
    trained on, and the number of blocks where the network answers otherwise. ``most`` examples of a kind are drawn by
    ``seed`` where there are more. ``place`` has the columns that identify the network.
    """
    examiner = Examiner(data, examples, device, batch_size, most, seed)
    answers = lens_answers(model, examiner, blocks, progress=progress)
    settings = {"analysis": "lens", "blocks": len(blocks), "examples": most, "seed": seed}
    known = {**dict(place or {}), "settings": json.dumps(settings, sort_keys=True)}
    shown = examples.iloc[examiner.rows]
    rows: list[Row] = []
    for kind in examiner.kinds:
        at, labels = examiner.members(kind)
        hits = {"lens_accuracy": answers[:, at] == labels}
        if length is not None and most is None:
            hits["lens_exact"] = _whole(hits["lens_accuracy"], shown["index"].to_numpy()[at] // length)
        for metric, of_kind in hits.items():
            rows += _shares(metric, kind, blocks, of_kind.astype(np.float64))
    depth = settled_from(answers == shown["train_label"].to_numpy())
    of_kinds = (shown["split"] != VALIDATION).to_numpy()
    singles = example_rows(shown[of_kinds], {"lens_depth": depth[of_kinds]}, settings=settings, place=dict(place or {}))
    return as_table([known | row for row in rows]), singles


def _whole(
    hits: Bool[np.ndarray, "blocks examples"], sequences: Int[np.ndarray, " examples"]
) -> Bool[np.ndarray, "blocks sequences"]:
    """True for each sequence of which all positions are answered.

    >>> _whole(np.array([[True, True, False, True]]), np.array([5, 2, 2, 5])).tolist()
    [[False, True]]
    """
    order = np.argsort(sequences, kind="stable")
    _, starts = np.unique(sequences[order], return_index=True)
    return np.logical_and.reduceat(hits[:, order], starts, axis=1)


def _shares(metric: str, kind: str, blocks: Sequence[Layer], hits: Float[np.ndarray, "blocks n"]) -> Iterator[Row]:
    for depth, (block, of_block) in enumerate(zip(blocks, hits, strict=True), start=1):
        place = {"layer": block.name, "depth": depth, "kind": kind, "metric": metric, "n": len(of_block)}
        yield place | {"value": float(of_block.mean()), "stderr": standard_error(of_block)}
