"""Training on partly permuted labels until they are memorized, and scoring the four kinds (Stephenson et al. 2021).

A run interrupted anywhere continues as if it had not been: all randomness of an epoch is drawn from (seed, epoch), and
the state after every epoch is on disk. On the CPU that holds bit for bit; on a GPU as far as its kernels repeat
themselves.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from manigeo.errors import InputError, ManigeoError, UsageError
from manigeo.faces.progress import bar
from manigeo.kinds import BY_MEMORY
from manigeo.runs import RunFolder
from manigeo.storage.spreadsheets import write_cells
from manigeo_extract.batches import called, like_parameters, n_examples
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.devices import check_device
from manigeo_extract.files.checkpoints import (
    Checkpoint,
    plain,
    read_safely,
    restore_model,
    state_copy,
    to_bytes,
    write_whole,
)
from manigeo_extract.models.tied import tied_to
from manigeo_extract.recording.layers import evaluating, logits_of, taking_inputs, without_gradients
from manigeo_extract.training.answering import AnswerSheet
from manigeo_extract.training.course import Course, course_of, trained_rows
from manigeo_extract.training.evaluation import (
    MEMORIZATION_GATE,
    Scores,
    answered,
    evaluate,
    held,
    memorized,
)
from manigeo_extract.training.finetuning import Start
from manigeo_extract.training.plan import TrainingPlan
from manigeo_extract.training.recorder import Recorder, flat_settings
from manigeo_extract.training.suffixes import scored

__all__ = ["MEMORIZATION_GATE", "Recorder", "TrainingPlan", "augmented", "evaluate", "memorized", "train"]

RESUME_FORMAT = "manigeo-resume"

Progress = Callable[[int, float, Scores], None]
# of scores, labels of all that is trained on, rows of the batch and an optimizer: computes the gradient, returns the loss
Backward = Callable[[Tensor, Tensor, Tensor, torch.optim.Optimizer], Tensor]


@runtime_checkable
class Accounts(Protocol):
    """Keeps accounts of gradients, as :class:`manigeo_extract.gradients.accounts.GradientAccounts` does."""

    def check(self, optimizer: torch.optim.Optimizer) -> None: ...
    def backward(self, losses: Tensor, permuted: Tensor, optimizer: torch.optim.Optimizer) -> None: ...
    def record(self, folder: RunFolder, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


# ------------------------------------------------------------------------------------------------------------ training
def train(
    model: torch.nn.Module,
    data: DataSet,
    examples: pd.DataFrame,
    plan: TrainingPlan,
    directory: str | os.PathLike[str],
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    permutation: Any = None,
    start: Start | None = None,
    accounts: Accounts | None = None,
    record_examples: Collection[int] | str = (),
    near_guessing: float | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Scores:
    """Train ``model`` on ``train_label`` of the example table; return the scores of the last epoch.

    The scores are those of :func:`~manigeo_extract.training.evaluation.evaluate`. Writes the folder that
    :mod:`manigeo_extract.training.recorder` describes. ``arch``, ``arch_args`` and ``permutation`` describe the model
    and the labels; they go into the checkpoints. ``start`` tells where weights that are to be fine-tuned are from
    (:mod:`manigeo_extract.training.finetuning`); it goes into ``run.json``. ``accounts`` of ``model`` sum the change that
    permuted and unpermuted examples make (:mod:`manigeo_extract.gradients.accounts`); training is the same with and without.
    After the epochs ``record_examples`` (numbers, or "all") what the network says of each example is recorded
    (:mod:`manigeo.per_example.recorded`), from the scoring that is done anyway. ``near_guessing`` is the limit of what
    counts as before memorization (:class:`~manigeo_extract.training.recorder.Recorder`); a resumed run keeps its own.
    ``progress`` is called with epoch, training loss and scores when an epoch is on disk; without it a bar is shown, on a
    terminal only. With ``resume`` a run continues after its last whole epoch, and one that has none starts.

    Raises, before anything is written, :class:`~manigeo.errors.UsageError` when the folder holds another run, or one
    with other settings, when the device is not there, and when the network does not give an output for each class;
    :class:`~manigeo.errors.InputError` when it does not take the inputs. Raises
    :class:`~manigeo.errors.ManigeoError` when the loss is no longer finite; what was written until then stays.

    >>> import tempfile
    >>> from manigeo_extract import load_data, permute_labels, Permutation
    >>> data = load_data("digits", {"per_class": 10})
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> examples = permute_labels(data, Permutation(0.5))
    >>> scores = train(model, data, examples, TrainingPlan(epochs=1), tempfile.mkdtemp(), progress=lambda *_: None)
    >>> sorted(scores["permuted"])
    ['accuracy', 'loss', 'n']
    """
    device = check_device(device)
    model.to(device)
    _check_network(model, data, examples, plan, device)
    optimizer = plan.build_optimizer(model)
    if accounts is not None:
        accounts.check(optimizer)
    described = {
        "arch": arch, "arch_args": dict(arch_args or {}), "data": data.spec, "data_args": data.args,
        "data_fingerprint": data.fingerprint, "permutation": permutation, "seed": plan.seed,
    }  # fmt: skip
    settings = _settings(described, plan, examples, start)
    recorder = Recorder(
        directory, **described, run_id=_identity(settings), epochs=plan.checkpoint_epochs, n_classes=data.n_classes,
        near_guessing=near_guessing, notes={"plan": plan} | ({} if start is None else {"started_from": start.origin}),
        examples=examples, record_examples=record_examples, resume=resume, overwrite=overwrite,
    )  # fmt: skip
    done, scores = _resumed(recorder, settings, plan, model, optimizer, accounts) if resume else (-1, {})
    if done < 0:
        write_whole(recorder.folder.labels_path, _as_csv(examples))
    source = held(data, np.arange(len(examples)), device)
    course = course_of(data, examples, source, device)
    backward = _plain_backward if accounts is None else _accounted_backward(accounts, course.memorized)
    with _reported(progress, plan, done) as report:
        for epoch in range(done + 1, plan.epochs + 1):  # epoch 0 scores and records the initial network
            loss = _train_epoch(model, optimizer, course, plan, epoch, backward) if epoch else 0.0
            if plan.scores_after(epoch) or recorder.records(epoch):
                sheet = AnswerSheet(examples) if recorder.records(epoch) else None
                scores, sequences = scored(model, source, data, examples, device, sheet)
                _check_finite(epoch, loss, scores, plan)
                recorder.step(model, epoch, scores, None if sheet is None else sheet.answers())
                if sequences is not None:
                    write_whole(recorder.folder.sequences_path, (write_cells(sequences) or "").encode())
            _check_finite(epoch, loss, {}, plan)
            if accounts is not None and epoch:
                accounts.record(recorder.folder, epoch)
            write_whole(recorder.folder.resume_path, _state(settings, model, optimizer, epoch, scores, accounts))
            report(epoch, loss, scores)
    return scores


def _settings(
    described: Mapping[str, Any], plan: TrainingPlan, examples: pd.DataFrame, start: Start | None
) -> dict[str, Any]:
    """All that makes a training another one."""
    settings = plain({**described, "plan": plan, "labels": hashlib.sha256(_as_csv(examples)).hexdigest()})
    return settings | ({} if start is None else {"started_from": plain(start.identity)})


def seconds_of_training(
    model: torch.nn.Module,
    data: DataSet,
    examples: pd.DataFrame,
    plan: TrainingPlan,
    device: str | torch.device = "cpu",
) -> float:
    """Estimate the seconds that :func:`train` will take, from two steps and two scored batches of a copy of ``model``.

    Raises what :func:`train` would raise of a network that does not go with the data.
    """
    device = check_device(device)
    copy = deepcopy(model).to(device)
    _check_network(copy, data, examples, plan, device)
    some, optimizer = trained_rows(examples)[: 2 * plan.batch_size], plan.build_optimizer(copy)
    source = held(data, some, device)
    few = examples.iloc[some].reset_index(drop=True)
    course = course_of(data, examples, data, device)
    short = course.first(2 * plan.batch_size)

    def step() -> None:
        _train_epoch(copy, optimizer, short, plan, 1)

    def score() -> None:
        evaluate(copy, source, few, device)

    each = [_seconds(step) / len(short), _seconds(score) / len(few)]
    n_scored = sum(map(plan.scores_after, range(1, plan.epochs + 1)))
    return float(np.dot(each, [plan.epochs * len(course), n_scored * len(examples)]))


def _seconds(work: Callable[[], None]) -> float:
    """Seconds of the quickest of a few runs, without the first, which also looks for kernels and fills caches. Slow ones are
    three, since one can fall into a moment in which another program has the processor."""
    work()
    took: list[float] = []
    while (len(took) < 5 and sum(took) < 0.5) or (len(took) < 3 and sum(took) < 3):
        began = time.monotonic()
        work()
        took.append(time.monotonic() - began)
    return min(took)


def _identity(settings: Mapping[str, Any]) -> str:
    """Identity of the run: the same training again has the same one."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _check_network(
    model: torch.nn.Module, data: DataSet, examples: pd.DataFrame, plan: TrainingPlan, device: torch.device
) -> None:
    """Refuse a network that cannot be trained on these data, as far as two examples show it."""
    rows = trained_rows(examples)
    if not len(rows):
        raise UsageError("examples must be a table with training examples, got 0")
    shape = " x ".join(map(str, data.input_shape))
    if plan.augment and len(data.input_shape) != 3:
        raise UsageError(
            f"augment expects images of channels x height x width, the inputs of {data.spec} are {shape}; "
            "leave augment off"
        )
    if not any(weights.requires_grad for weights in model.parameters()):
        raise UsageError("the network has no parameters to train; expected one or more that require gradients")
    batch = data.inputs(rows[:2]).to(device)
    with taking_inputs(batch, data.spec), evaluating(model), without_gradients():
        output = called(model, like_parameters(model, batch))
    _check_logits(output, n_examples(batch), data.n_classes)


def _check_logits(output: object, n: int, n_classes: int) -> None:
    logits = logits_of(output)
    shape = None if logits is None else tuple(logits.shape)
    if shape is None or len(shape) != 2 or shape[0] != n or shape[1] < n_classes:
        found = f"a {type(output).__name__}" if shape is None else f"a tensor of shape {shape}"
        raise UsageError(
            f"the network must return a tensor (examples, outputs) with {n_classes} outputs or more, one for each "
            f"class, got {found} for {n} examples"
        )


def augmented(
    images: Float[Tensor, "n channels height width"],
    generator: torch.Generator,
    pad: int = 4,
) -> Float[Tensor, "n channels height width"]:
    """Each image shifted by up to ``pad`` pixels either way (the margin is 0, the mean colour), and mirrored or not."""
    n, _, height, width = images.shape
    top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand((n, 1), generator=generator) < 0.5
    y, x = top + torch.arange(height), left + torch.arange(width)
    x = torch.where(mirrored, x.flip(1), x)
    n_, y_, x_ = (i.to(images.device) for i in (torch.arange(n)[:, None, None], y[:, :, None], x[:, None, :]))
    return F.pad(images, (pad,) * 4)[n_, :, y_, x_].permute(0, 3, 1, 2)  # indexing puts the channels last


def _train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    course: Course,
    plan: TrainingPlan,
    epoch: int,
    backward: Backward | None = None,
) -> float:
    """One pass over what is trained on in random order; the mean loss on the way."""
    rows, labels = course.rows, course.labels
    model.train()
    plan.set_rates(optimizer, epoch)
    backward = backward or _plain_backward
    n_batches = math.ceil(len(rows) / plan.batch_size)
    total = torch.zeros((), device=labels.device)
    with _seeded(plan.seed, epoch, labels.device) as generator:
        order = torch.randperm(len(rows), generator=generator)
        # equal batches: a last one of a single example would be too small for batch norm
        for batch in order.tensor_split(n_batches):
            images = course.source.inputs(rows[batch.numpy()]).to(labels.device)
            images = augmented(images, generator) if plan.augment else images
            optimizer.zero_grad()
            with tied_to(model, rows[batch.numpy()]):
                logits = answered(model, images, axes=1 + labels.ndim)
            loss = backward(logits, labels, batch.to(labels.device), optimizer)
            optimizer.step()
            total += loss.detach() * len(batch)
    return float(total) / len(rows)


def _plain_backward(logits: Tensor, labels: Tensor, batch: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """The gradient of the mean loss of a ``batch``, which is returned."""
    loss = F.cross_entropy(logits.movedim(-1, 1), labels[batch])
    loss.backward()
    return loss


def _accounted_backward(accounts: Accounts, memorized: Bool[Tensor, " n"]) -> Backward:
    """The same, with what of it only memorization can learn (permuted labels, canaries) entered into the accounts."""

    def backward(logits: Tensor, labels: Tensor, batch: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
        losses = F.cross_entropy(logits.movedim(-1, 1), labels[batch], reduction="none")
        if losses.ndim > 1:  # of sequences, each with its share of the mean over all positions
            losses = losses.sum(dim=1) * (len(losses) / labels[batch].ge(0).sum())
        accounts.backward(losses, memorized[batch], optimizer)
        return losses.mean()

    return backward


@contextmanager
def _seeded(seed: int, epoch: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator, and torch's global one for dropout, that know (seed, epoch) and nothing of what came before."""
    order, layers = np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint64)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(layers))
        yield torch.Generator().manual_seed(int(order))


def _check_finite(epoch: int, loss: float, scores: Scores, plan: TrainingPlan) -> None:
    if not all(map(math.isfinite, [loss, *(kind["loss"] for kind in scores.values())])):
        raise ManigeoError(
            f"the loss is not finite after epoch {epoch} of {plan.epochs}; what was recorded before is kept; "
            f"try a learning rate below {plan.lr:g}"
        )


# ------------------------------------------------------------------------------------------------------------ resuming
def _state(
    settings: Mapping[str, Any],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    scores: Scores,
    accounts: Accounts | None = None,
) -> bytes:
    """Serialise all that the next epoch depends on. The learning rate and the random numbers follow from the epoch."""
    return to_bytes(
        ({} if accounts is None else {"accounts": accounts.state_dict()})
        | {
            "format": RESUME_FORMAT,
            "format_version": 1,
            "settings": dict(settings),
            "epoch": epoch,
            "model_state": state_copy(model),
            "optimizer_state": optimizer.state_dict(),
            "scores": scores,
        }
    )


def _resumed(
    recorder: Recorder,
    settings: Mapping[str, Any],
    plan: TrainingPlan,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    accounts: Accounts | None = None,
) -> tuple[int, Scores]:
    """The last whole epoch (-1: none) and its scores, with model, optimizer and accounts as they were then."""
    path = recorder.folder.resume_path
    if not path.exists():
        return -1, {}
    state, sha256 = read_safely(path)
    if not isinstance(state, dict) or state.get("format") != RESUME_FORMAT:
        raise InputError(f"{path}: is not the state of a run; restore it, or train into another folder")
    _check_same(path, state["settings"], settings)
    restore_model(Checkpoint(state["model_state"], sha256, str(path)), model)
    optimizer.load_state_dict(state["optimizer_state"])
    if ("accounts" in state) != (accounts is not None):
        was = "with" if "accounts" in state else "without"
        raise UsageError(f"{path}: the run was begun {was} accounts of gradients: go on {was} them, or train anew")
    if accounts is not None:
        accounts.load_state_dict(state["accounts"])
    last_scored = max(epoch for epoch in range(state["epoch"] + 1) if plan.scores_after(epoch))
    if last_scored not in set(recorder.table["epoch"]):
        raise InputError(
            f"{recorder.metrics_path}: lacks epoch {last_scored}; restore it, or train into another folder"
        )
    return state["epoch"], state["scores"]


def _check_same(path: os.PathLike[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    before, now = flat_settings(before), flat_settings(now)
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if names:
        changes = ", ".join(f"{name} (was {before.get(name)!r}, is {now.get(name)!r})" for name in names)
        raise UsageError(f"{path}: a run with other settings: {changes}; give the same, or train into another folder")


def _as_csv(examples: pd.DataFrame) -> bytes:
    return examples.to_csv(index=False).encode()


@contextmanager
def _reported(progress: Progress | None, plan: TrainingPlan, done: int) -> Iterator[Progress]:
    """The caller's own report of progress, or one line on a terminal."""
    if progress is not None:
        yield progress
        return
    with bar(plan.epochs, "train", "epoch", initial=max(done, 0)) as told:

        def report(epoch: int, loss: float, scores: Scores) -> None:
            shown = {
                kind: f"{values['accuracy']:.3f}" for kind, values in scores.items() if kind in (*BY_MEMORY, "test")
            }
            told.set_postfix(loss=f"{loss:.4f}", **shown)
            told.update(min(epoch, 1))

        yield report
