r"""Sequences of tokens for causal language models, with random ones (canaries) that only memorization can predict.

A text is cut into sequences of ``length`` tokens, which training goes through as a whole: the loss is the mean over all
positions of the cross-entropy of the next token. Everything else looks at single positions. An *example* is a context, the
tokens before a position t of a sequence, padded to the right, and its label is the token at t; the classes are the tokens of
the vocabulary. Contexts shorter than ``prefix`` are no examples: at the beginning of a sequence nothing tells which it is.

=========  ======================================================================================================
kind       the positions from ``prefix`` on of
=========  ======================================================================================================
memorized  canaries: tokens drawn uniformly among the 24 most frequent, each canary several times in every epoch
control    as many sequences drawn likewise and never trained on, which are the reference of exposure, too
typical    the sequences of the text that were trained on
test       sequences of the text that were held out
=========  ======================================================================================================

Carlini, Liu, Erlingsson, Kos, Song (2019), The secret sharer, USENIX Security.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, Int32, Int64
from torch import Tensor

from manigeo.errors import InputError, UsageError, one_line
from manigeo.kinds import CONTROL, MEMORIZED, TYPICAL, VALIDATION
from manigeo_extract.batches import MASK, NamedTensors
from manigeo_extract.data.grammar import sentences
from manigeo_extract.data.parts import Part, Source, as_part, generator
from manigeo_extract.data.tokens import Tokenizer, tokenizer_of

TOKENS = "input_ids"  # the name of the tokens among the inputs of a network
_PADDING = -1  # in stored sequences, which are of several lengths
NO_LABEL = -100  # of positions that no loss is of
_FREQUENT = 24  # tokens that canaries are drawn among: of rarer ones there would be no manifolds of all kinds


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences that an epoch of training goes through: ``tokens`` (sequences, length), -1 behind their ends.

    ``planted`` marks the canaries; ``index`` are the places of the examples in the text, by kind: number of the sequence
    times ``length`` plus the position, where canaries and controls count on behind the text.
    """

    tokens: Int32[np.ndarray, "n length"]
    planted: Bool[np.ndarray, " n"]
    index: Mapping[str, Int64[np.ndarray, " examples"]]
    canaries: tuple[int, int, int] | None
    tokenizer: Tokenizer = field(repr=False)

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return self.tokens.shape[1]

    def inputs(self, rows: Int[np.ndarray, " batch"]) -> NamedTensors:
        """The tokens of some sequences but their last, without a mask: a network answers at every position."""
        tokens = torch.from_numpy(self.tokens[rows, :-1].astype(np.int64))
        return NamedTensors({TOKENS: tokens.clamp(min=0)})

    def labels(self) -> Int[Tensor, "n positions"]:
        """The next token at every position, -100 behind the end."""
        following = torch.from_numpy(self.tokens[:, 1:].astype(np.int64))
        return following.masked_fill(following == _PADDING, NO_LABEL)

    def describe(self) -> str:
        """Number of the sequences in words."""
        n, length = self.tokens.shape
        if self.canaries is None:
            return f"{n} training sequences of {length} tokens"
        number, long, repeats = self.canaries
        return (
            f"{n - number * repeats} training sequences of {length} tokens, and {number} canaries of {long} random tokens, "
            f"{repeats} times each"
        )


@dataclass(frozen=True)
class Cutting:
    """Rules by which a text is cut into sequences, some are held out, and positions become examples.

    Raises :class:`~manigeo.errors.UsageError` for a value out of its range.
    """

    where: str
    length: int
    prefix: int
    test: float
    validation: float
    scored: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.prefix < self.length:
            raise UsageError(
                f"{self.where}: expected prefix from 1 to below the length of {self.length} tokens, got {self.prefix}"
            )
        if not (min(self.test, self.validation) >= 0 and self.test + self.validation < 1):
            raise UsageError(
                f"{self.where}: expected test and validation as shares of the text below 1, got {self.test} and "
                f"{self.validation}"
            )
        if self.scored < 1:
            raise UsageError(f"{self.where}: expected scored as 1 sequence or more of a kind, got {self.scored}")

    def cut(self, texts: Sequence[Int32[np.ndarray, " tokens"]]) -> Int32[np.ndarray, "n length"]:
        """Whole sequences of each text, one after another; what is left at its end is left out.

        Raises :class:`~manigeo.errors.InputError` for fewer than three.
        """
        length = self.length
        cut = np.concatenate([text[: len(text) // length * length].reshape(-1, length) for text in texts])
        if len(cut) < 3:
            tokens = sum(map(len, texts))
            raise InputError(
                f"{self.where}: expected text for 3 sequences of {length} tokens or more, found {tokens} tokens"
            )
        return cut

    def split(self, n: int) -> dict[str, Int64[np.ndarray, " rows"]]:
        """Numbers of the sequences to train on and of those held out, in random order.

        Raises :class:`~manigeo.errors.InputError` where none is left to train on.
        """
        order = generator(self.seed, "sequences").permutation(n)
        n_test, n_validation = max(1, round(self.test * n)) if self.test else 0, round(self.validation * n)
        if n_test + n_validation >= n:
            raise InputError(
                f"{self.where}: expected more than {n} sequences, of which {n_test + n_validation} are held out"
            )
        held = {"test": order[:n_test], VALIDATION: order[n_test : n_test + n_validation]}
        return {TYPICAL: order[n_test + n_validation :]} | held

    def planted(self, canaries: str | Sequence[int]) -> tuple[int, int, int] | None:
        """Number, length and repeats of the canaries; None for none.

        Raises :class:`~manigeo.errors.UsageError` for canaries that do not fit the sequences.
        """
        if not canaries:
            return None
        try:
            number, long, repeats = map(int, canaries.split(",") if isinstance(canaries, str) else canaries)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{self.where}: expected canaries as number, length in tokens and repeats, such as 50,32,10, got "
                f"{canaries!r}"
            ) from error
        if number < 1 or repeats < 1:
            raise UsageError(
                f"{self.where}: expected 1 canary or more, and repeated once or more, got {number} and {repeats}"
            )
        if not self.prefix < long <= self.length:
            raise UsageError(
                f"{self.where}: expected canaries longer than the prefix of {self.prefix} tokens and not than the "
                f"sequences of {self.length}, got {long}"
            )
        return number, long, repeats


def read_text(
    path: Path,
    *,
    tokenizer: str = "",
    length: int = 64,
    prefix: int = 8,
    canaries: str | Sequence[int] = "",
    test: float = 0.1,
    validation: float = 0.1,
    scored: int = 100,
    seed: int = 0,
) -> Source:
    """Sequences of ``length`` tokens of a text file (UTF-8), or of all the .txt, .md and .rst files below a folder.

    ``tokenizer`` is the folder of a Hugging Face tokenizer's files; without it tokens are bytes. ``canaries``: number,
    length and repeats of the random sequences to plant. ``test`` and ``validation`` are the shares of the sequences that are
    held out. At most ``scored`` sequences of each kind are examples, drawn by ``seed``; canaries and controls all are.

    Raises :class:`~manigeo.errors.InputError` for a file that is no text, or too short.
    """
    cutting = Cutting(str(path), length, prefix, test, validation, scored, seed)
    return _sequences(cutting, _texts(path), tokenizer_of(tokenizer), canaries)


def read_sentences(
    *,
    n: int = 700,
    length: int = 32,
    prefix: int = 8,
    canaries: str | Sequence[int] = "",
    test: float = 0.1,
    validation: float = 0.1,
    scored: int = 100,
    seed: int = 0,
) -> Source:
    """Sequences of ``length`` bytes of ``n`` generated sentences; the other options are those of :func:`read_text`."""
    cutting = Cutting("sentences", length, prefix, test, validation, scored, seed)
    return _sequences(cutting, [sentences(n, seed=seed)], tokenizer_of(""), canaries)


def _texts(path: Path) -> list[str]:
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in (".txt", ".md", ".rst") and file.is_file())
    if not files:
        raise InputError(f"{path}: expected .txt, .md or .rst files, found none")
    try:
        return [file.read_text(encoding="utf-8") for file in files]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a text in UTF-8, or a folder of such ({one_line(error)})") from error


def _sequences(cutting: Cutting, texts: Sequence[str], tokenizer: Tokenizer, canaries: str | Sequence[int]) -> Source:
    planted = cutting.planted(canaries)
    cut = cutting.cut([tokenizer.encode(text) for text in texts])
    kinds = cutting.split(len(cut))
    scored = {kind: (cut[rows[: cutting.scored]], rows[: cutting.scored]) for kind, rows in kinds.items() if len(rows)}
    lessons, is_canary = cut[kinds[TYPICAL]], np.zeros(len(kinds[TYPICAL]), bool)
    if planted is not None:
        number, long, repeats = planted
        random = _random(lessons, (2 * number, long), cutting)
        numbers = len(cut) + np.arange(2 * number)
        scored[MEMORIZED], scored[CONTROL] = zip(np.split(random, 2), np.split(numbers, 2), strict=True)
        lessons = np.concatenate([lessons, np.repeat(random[:number], repeats, axis=0)])
        is_canary = np.concatenate([is_canary, np.ones(number * repeats, bool)])
    found = {kind: contexts(f"{cutting.where} ({kind})", *of, cutting.prefix) for kind, of in scored.items()}
    index = {kind: place for kind, (_, place) in found.items()}
    parts = {kind: part for kind, (part, _) in found.items()}
    sequences = Sequences(lessons, is_canary, index, planted, tokenizer)
    return Source(parts, tokenizer.names, standardise=False, sequences=sequences)


def _random(
    lessons: Int32[np.ndarray, "n length"], shape: tuple[int, int], cutting: Cutting
) -> Int32[np.ndarray, "m length"]:
    """Sequences drawn uniformly among the most frequent tokens, padded to the length of the others."""
    tokens, counts = np.unique(lessons, return_counts=True)
    frequent = np.sort(tokens[np.argsort(-counts, kind="stable")[:_FREQUENT]])
    drawn = generator(cutting.seed, "canaries").choice(frequent, size=shape)
    return np.pad(drawn, ((0, 0), (0, cutting.length - shape[1])), constant_values=_PADDING)


def contexts(
    where: str, sequences: Int32[np.ndarray, "n length"], numbers: Int64[np.ndarray, " n"], prefix: int
) -> tuple[Part, Int64[np.ndarray, " examples"]]:
    """The contexts of the positions from ``prefix`` on, each with its next token as label, and their places in the text.

    >>> part, index = contexts("text", np.array([[7, 8, 9, -1]], np.int32), np.array([5]), 1)
    >>> part.inputs["input_ids"].tolist(), part.inputs["attention_mask"].tolist()
    ([[7, 0, 0], [7, 8, 0]], [[1, 0, 0], [1, 1, 0]])
    >>> part.labels.tolist(), index.tolist()
    ([8, 9], [21, 22])
    """
    length = sequences.shape[1]
    row, position = np.nonzero((sequences != _PADDING) & (np.arange(length) >= prefix))
    seen = np.arange(length - 1) < position[:, None]
    inputs = np.empty(len(row), dtype=[(name, np.int32, (length - 1,)) for name in (TOKENS, MASK)])
    inputs[TOKENS], inputs[MASK] = np.where(seen, sequences[row, :-1], 0), seen
    return as_part(where, inputs, sequences[row, position]), numbers[row] * length + position


def fingerprint_of(examples: str, sequences: Sequences) -> str:
    """Sha256 over the fingerprint of the examples and the sequences that are trained on."""
    digest = hashlib.sha256(examples.encode())
    digest.update(repr(sequences.tokens.shape).encode() + sequences.tokens.astype("<i4").tobytes())
    return digest.hexdigest()
