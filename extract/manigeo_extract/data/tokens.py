"""Tokens of a text: its bytes, or those of a local Hugging Face tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from manigeo_extract.data.texts import open_tokenizer

_NAMED = {0x20: "space", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}


@runtime_checkable
class Tokenizer(Protocol):
    """The tokens of texts, and the texts of tokens; ``names`` has one name for each token of the vocabulary."""

    @property
    def names(self) -> tuple[str, ...]: ...
    def encode(self, text: str) -> Int[np.ndarray, " n"]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...


class Bytes:
    """Tokenizer whose tokens are the 256 bytes of UTF-8.

    >>> Bytes().encode("a b").tolist(), Bytes().decode([97, 32, 98]), Bytes().names[97]
    ([97, 32, 98], 'a b', 'a')
    """

    names = tuple(_NAMED.get(byte) or (chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}") for byte in range(256))

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        # a network may know more tokens than there are bytes, and answer by them
        return b"".join(bytes([t]) if t < len(self.names) else "\ufffd".encode() for t in tokens).decode(
            errors="replace"
        )


class HuggingFace:
    """Tokenizer in the folder of its files; it adds no special tokens.

    Raises :class:`~manigeo.errors.UsageError` without transformers, and :class:`~manigeo.errors.InputError` for a folder
    without a tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = open_tokenizer(folder)

    @property
    def names(self) -> tuple[str, ...]:
        found = self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))
        return tuple(name if name and name.strip() else f"token {i}" for i, name in enumerate(found))

    def encode(self, text: str) -> Int[np.ndarray, " n"]:
        return np.array(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode([int(token) for token in tokens]))


def tokenizer_of(folder: str) -> Tokenizer:
    """The tokenizer in a folder; that of bytes for none."""
    return HuggingFace(Path(folder).expanduser()) if folder else Bytes()
