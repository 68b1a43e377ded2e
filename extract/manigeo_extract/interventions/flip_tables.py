"""Fewest channels of a run as a results table: how many flip an example of each kind, and in which layers they lie."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit

from manigeo.errors import InputError, UsageError, check_choice
from manigeo.execution.resuming import remaining
from manigeo.kinds import BY_MEMORY, MARKED, TRAINED
from manigeo.localization.reference import GATE
from manigeo.manifolds import standard_error
from manigeo.per_example.table import example_rows, join_examples
from manigeo.randomness import stream
from manigeo.results import as_table
from manigeo.vocabulary import in_words_of
from manigeo_extract.interventions.channels import Channels, Masked
from manigeo_extract.interventions.flipping import Flip, FlipPlan, flip_example
from manigeo_extract.interventions.scoring import Row
from manigeo_extract.models.tied import tied_to
from manigeo_extract.recording.layers import eagerly, evaluating, unwrap, without_gradients
from manigeo_extract.training.evaluation import answered, members_of
from manigeo_extract.training.runs import Run

FLIPPED_KINDS = ("permuted", "unpermuted", "test", *MARKED)  # places in here are spawn keys: append only
ALL = "(all)"
_OF_ALL = ("channels_to_flip", "flipped", "flipped_control", "others_changed")


@dataclass(frozen=True, eq=False)
class ChannelStudy:
    """Examples of ``kinds`` that a network answers by their labels, ``most`` of each drawn by the seed of the ``plan``, and
    the channels that may be removed of it. ``settings`` are stored beside those of the plan."""

    run: Run
    channels: Sequence[Channels]
    kinds: tuple[str, ...] = ("permuted", "unpermuted")
    most: int | None = 100
    plan: FlipPlan = field(default_factory=FlipPlan)
    batch_size: int = 256
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in self.kinds:
            check_choice("kind", kind, FLIPPED_KINDS)
            if not len(members_of(self.run.examples, kind)[0]):
                there = [name for name in FLIPPED_KINDS if len(members_of(self.run.examples, name)[0])]
                raise UsageError(
                    f"there are no {kind} examples: give --kinds of those that there are ({', '.join(there)})"
                )

    @property
    def layers(self) -> list[str]:
        """Names of the layers that have channels, by execution."""
        return list(dict.fromkeys(of.layer for of in self.channels))

    def examples(self, kind: str) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Rows and labels of the examples of a kind that are looked at.

        Raises :class:`~manigeo.errors.InputError` where the network has not memorized the permuted labels, and where it
        answers no example by its label.
        """
        rows, labels = members_of(self.run.examples, kind)
        right = self._answers(rows, kind) == labels
        if kind in BY_MEMORY and right.mean() < GATE:
            why = f"the network has not memorized its permuted labels (accuracy {right.mean():.3f}, needed {GATE}): train "
            raise InputError(in_words_of(kind, f"{why}longer, or give --kinds unpermuted"))
        if not right.any():
            raise InputError(f"no {kind} example is answered by its label, so there is no answer to flip: train longer")
        at = stream(self.plan.seed, 2, FLIPPED_KINDS.index(kind)).permutation(np.flatnonzero(right))[: self.most]
        return rows[np.sort(at)], labels[np.sort(at)]

    def flips(self, kind: str) -> Iterator[tuple[int, Flip]]:
        """The examples of a kind, by their rows in the example table, and what flips each."""
        rows, labels = self.examples(kind)
        masked, root = Masked(self.run.model, self.channels), unwrap(self.run.model)
        with evaluating(root), eagerly(root):
            for row, label in zip(rows, labels, strict=True):
                others = self._others(int(row))
                named = None if kind == "test" else np.concatenate([[row], others])
                with tied_to(root, named):
                    flip = flip_example(masked, *self._batch(int(row), int(label), others), self.plan, int(row))
                yield int(row), flip

    def table(self, kind: str) -> pd.DataFrame:
        """The results of one kind: see :func:`flip_rows`."""
        return self.tables(kind)[0]

    def tables(self, kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The results of one kind (:func:`flip_rows`), and the same as numbers of single examples: the channels that flip
        each, flagged ``censored`` where it did not, and the share of them in each layer."""
        found = list(self.flips(kind))
        rows, flips = [row for row, _ in found], [flip for _, flip in found]
        place = dict(self.run.place) | {"kind": kind, "settings": json.dumps(self.common, sort_keys=True)}
        results = as_table([place | row for row in flip_rows(flips, self.channels)])
        return results, self._of_examples(self.run.examples.iloc[rows].reset_index(drop=True), flips)

    def _of_examples(self, examples: pd.DataFrame, flips: Sequence[Flip]) -> pd.DataFrame:
        counts, flipped = np.array([len(flip.removed) for flip in flips], float), np.array([f.flipped for f in flips])
        known: dict[str, Any] = {"settings": self.common, "place": self.run.place}
        of_all = [
            example_rows(examples[of], {"channels_to_flip": counts[of]}, flag=flag, **known)
            for of, flag in ((flipped, ""), (~flipped, "censored"))
        ]
        some = counts > 0
        of_layers = [
            example_rows(
                examples[some], {"channel_share": layer_shares(flips, self.channels, layer)}, layer=layer, **known
            )
            for layer in self.layers
        ]
        return join_examples([*of_all, *of_layers])

    def todo(self, table: pd.DataFrame | None) -> tuple[list[str], pd.DataFrame | None]:
        """The kinds that are not whole in an earlier table, and the table without those.

        Raises :class:`~manigeo.errors.UsageError` for a table of other settings, :class:`~manigeo.errors.InputError` for
        one of another network.
        """
        if table is not None and set(table["fingerprint"]) - {self.run.place["fingerprint"]}:
            raise InputError(f"the table is not of the network in {self.run.directory}: give another --out, or --force")
        whole = len(_OF_ALL) + 3 + 2 * len(self.layers)
        kinds = {kind: kind for kind in self.kinds}
        return remaining(table, kinds, [self.common], lambda row, of: row.kind, lambda kind, rows: len(rows) == whole)

    def has_singles(self, examples: pd.DataFrame) -> bool:
        """Tell whether a table of examples is of this network and of these settings."""
        ours = json.loads(json.dumps(self.common))
        found = [json.loads(text) for text in examples["settings"].unique()]
        here = set(examples["fingerprint"]) <= {self.run.place["fingerprint"]}
        return here and all(of | ours == of for of in found)

    def seconds_per_step(self) -> float:
        """Seconds that one channel of one example takes, about."""
        rows, labels = members_of(self.run.examples, self.kinds[0])
        batch, of_all = self._batch(int(rows[0]), int(labels[0]), self._others(int(rows[0])))
        one, root = FlipPlan(max_channels=1, controls=1), unwrap(self.run.model)
        began = time.monotonic()
        with evaluating(root), eagerly(root):
            flip_example(Masked(self.run.model, self.channels), batch, of_all, one, 0)
        return (time.monotonic() - began) / 2

    @property
    def common(self) -> dict[str, Any]:
        """The settings that all rows share."""
        return {"analysis": "channels", "examples": self.most, **asdict(self.plan), **self.settings}

    @cached_property
    def _reference(self) -> Int[np.ndarray, " some"]:
        """Training examples that are to keep their answers, one more than asked for: none is beside itself."""
        rows = np.flatnonzero(self.run.examples["split"].isin(TRAINED).to_numpy())
        drawn: np.ndarray = stream(self.plan.seed, 0).permutation(rows)[: self.plan.reference + 1]
        return drawn

    def _others(self, row: int) -> Int[np.ndarray, " some"]:
        """The reference batch of an example."""
        return self._reference[self._reference != row][: self.plan.reference]

    def _batch(self, row: int, label: int, others: Int[np.ndarray, " some"]) -> tuple[Any, torch.Tensor]:
        """An example and its reference batch, with their labels."""
        known = self.run.examples["train_label"].to_numpy()[others]
        batch = self.run.data.inputs(np.concatenate([[row], others])).to(self._device)
        return batch, torch.as_tensor(np.concatenate([[label], known]), device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.run.model.parameters()).device

    def _answers(self, rows: Int[np.ndarray, " n"], kind: str) -> Int[np.ndarray, " n"]:
        root, found = unwrap(self.run.model), []
        with evaluating(root), eagerly(root), without_gradients():
            for part in np.array_split(rows, -(-len(rows) // self.batch_size)):
                with tied_to(root, None if kind == "test" else part):
                    found.append(answered(root, self.run.data.inputs(part).to(self._device)).argmax(dim=1))
        answers: np.ndarray = torch.cat(found).cpu().numpy()
        return answers


def flip_rows(flips: Sequence[Flip], channels: Sequence[Channels]) -> Iterator[Row]:
    r"""Rows of the results table from the examples of one kind.

    Of the network (layer ``(all)``): ``channels_to_flip``, the mean number of channels with the 95 % interval of Student's t
    over examples, flagged ``censored`` where some did not flip, so that it is a lower bound; their median; ``flipped``, the
    share of examples that did; ``flipped_control``, the share that flips without as many random channels of the same
    modules; ``others_changed``, the share of the reference batch with another answer. Of each layer l: ``channel_share``,

    .. math:: s_l = \Big\langle \frac{n_l(i)}{\sum_k n_k(i)} \Big\rangle_i,

    the share of an example's removed channels that lie there, and ``channel_share_chance``, its share of all channels.
    """
    n = len(flips)
    counts = np.array([len(flip.removed) for flip in flips], dtype=float)
    censored = sum(not flip.flipped for flip in flips)
    place: Row = {"layer": ALL, "depth": 0, "n": n}
    mean, error = float(counts.mean()), standard_error(counts)
    flag = {"flag": f"censored:{censored} of {n}"} if censored else {}
    half = float(stdtrit(n - 1, 0.975)) * error if n > 1 else np.nan
    yield place | flag | {"metric": "channels_to_flip", "value": mean, "stderr": error}
    for end, value in (("low", mean - half), ("high", mean + half)):
        yield place | flag | {"metric": f"channels_to_flip_ci_{end}", "value": value}
    yield place | {"metric": "channels_to_flip_median", "value": float(np.median(counts))}
    of_examples = {
        "flipped": [flip.flipped for flip in flips],
        "flipped_control": [flip.control for flip in flips],
        "others_changed": [flip.others_changed for flip in flips],
    }
    for metric, values in of_examples.items():
        of_each = np.array(values, dtype=float)
        yield place | {"metric": metric, "value": of_each.mean(), "stderr": standard_error(of_each)}
    layers = list(dict.fromkeys(of.layer for of in channels))
    total = sum(of.n for of in channels)
    for depth, layer in enumerate(layers):
        shares = layer_shares(flips, channels, layer)
        known = place | {"layer": layer, "depth": depth}
        yield known | {"metric": "channel_share", "value": shares.mean(), "stderr": standard_error(shares)}
        chance = sum(of.n for of in channels if of.layer == layer) / total
        yield known | {"metric": "channel_share_chance", "value": chance}


def layer_shares(flips: Sequence[Flip], channels: Sequence[Channels], layer: str) -> Float[np.ndarray, " n"]:
    """The share of each example's removed channels that lie in a layer."""
    return np.array(
        [np.mean([channels[module].layer == layer for module, _ in flip.removed]) for flip in flips if flip.removed]
    )
