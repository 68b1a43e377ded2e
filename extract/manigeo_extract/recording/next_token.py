"""Language models as networks that answer one question per example: which token follows a context?

A causal language model returns scores of the next token at every position. Called on contexts with an attention mask, as
everything but training calls it (:mod:`manigeo_extract.data.sequences`), it shall return those at the last token of each
context, one row per example: then contexts are examples, and tokens their classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError, one_line
from manigeo_extract.batches import MASK, Batch, called, like_parameters
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.recording.layers import evaluating, logits_of, unwrap, without_gradients
from manigeo_extract.recording.readouts import last_token


def answering_contexts(network: nn.Module, data: DataSet) -> nn.Module:
    """The network, which from now on returns scores of the next token (contexts, tokens of the vocabulary) for inputs with
    an attention mask, where ``data`` are sequences; for other data, and for inputs without a mask, it stays as it is.

    Raises :class:`~manigeo.errors.UsageError` for a network without a language head, with a context shorter than the
    sequences, or with fewer tokens than the tokenizer; :class:`~manigeo.errors.InputError` for one that takes no tokens.
    """
    root = unwrap(network)
    if data.sequences is None or _at_last_token in root._forward_hooks.values():
        return network
    _check_context(root, data)
    batch = data.inputs(slice(0, 2))
    try:
        with evaluating(root), without_gradients():
            output = called(root, like_parameters(root, batch))
    except Exception as error:  # the network is anybody's, and so is what it raises
        why = f": {one_line(error)}" if isinstance(error, ValueError | IndexError | RuntimeError) else ""
        raise InputError(
            f"the network does not take the tokens of {data.spec}{why}; give a causal language model of them (--arch gpt)"
        ) from error
    _check_head(root, logits_of(output), data)
    root.register_forward_hook(_at_last_token, with_kwargs=True)
    return network


def _at_last_token(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any], output: object) -> Tensor | None:
    """A forward hook: the scores at the last token of each context; None, to leave the output, for inputs without a mask."""
    mask, logits = named.get(MASK), logits_of(output)
    if mask is None or logits is None or logits.ndim != 3:
        return None
    return last_token(logits, mask.bool())


def answers(root: nn.Module, batch: Batch) -> object:
    """The output of the network for a batch. Contexts of one sequence that follow each other, each the beginning of the
    next, go through a language model as one: it is causal, so that each has its scores at its last token.

    >>> ids, mask = torch.tensor([[7, 0], [7, 8], [9, 0]]), torch.tensor([[1, 0], [1, 1], [1, 0]])
    >>> [found.tolist() for found in _joined({"input_ids": ids, "attention_mask": mask})]
    [[1, 2], [0, 0, 1], [0, 1, 0]]
    """
    if (
        _at_last_token not in unwrap(root)._forward_hooks.values()
        or not isinstance(batch, Mapping)
        or MASK not in batch
    ):
        return called(root, batch)
    longest, owner, last = _joined(batch)
    inputs = {name: tensor[longest] for name, tensor in batch.items() if name != MASK}
    logits = logits_of(called(root, inputs))
    return None if logits is None else logits[owner, last]


def _joined(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the contexts that are the beginning of none that follows, and for each context the place of the one that it is
    the beginning of among these, and of its last token."""
    mask = batch[MASK].bool()
    tokens = torch.cat([tensor.unsqueeze(-1) for name, tensor in batch.items() if name != MASK], dim=-1)
    begins = ((tokens[:-1] == tokens[1:]).all(dim=-1) | ~mask[:-1]).all(dim=1) & (mask[:-1] <= mask[1:]).all(dim=1)
    ends = torch.cat([~begins, begins.new_ones(1)])
    return ends.nonzero()[:, 0], ends.cumsum(0) - ends.long(), mask.sum(dim=1) - 1


def _check_context(root: nn.Module, data: DataSet) -> None:
    """Check what the configuration of a Hugging Face model tells; an index out of range would tell less."""
    config, (tokens,) = getattr(root, "config", None), data.input_shape
    most, known = (getattr(config, name, None) for name in ("max_position_embeddings", "vocab_size"))
    if isinstance(most, int) and tokens > most:
        raise UsageError(
            f"the network takes up to {most} tokens, and the sequences of {data.spec} have {tokens + 1}: give shorter ones "
            f"(--data-arg length={most})"
        )
    if isinstance(known, int):
        _check_vocabulary(known, data)


def _check_head(root: nn.Module, logits: Tensor | None, data: DataSet) -> None:
    shape = () if logits is None else tuple(logits.shape)
    vocabulary = getattr(getattr(root, "config", None), "vocab_size", 0)
    if shape[:-1] != (2, *data.input_shape) or shape[-1] < vocabulary:
        found = f"a tensor of shape {shape}" if shape else "none"
        raise UsageError(
            "expected a causal language model, with scores of the next token (examples, positions, vocabulary), got "
            f"{found}: give one with its language head, such as GPT2LMHeadModel"
        )
    _check_vocabulary(shape[-1], data)


def _check_vocabulary(n: int, data: DataSet) -> None:
    if n < data.n_classes:
        raise UsageError(
            f"the network knows {n} tokens, and the tokenizer of {data.spec} has {data.n_classes}: give the one that the "
            "network was trained with (--data-arg tokenizer=FOLDER)"
        )
