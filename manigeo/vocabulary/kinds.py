"""Words of the kinds: what is written of permuted labels, said of memorized examples where no labels were permuted."""

import re

from manigeo.kinds import MEMORIZED

_WORDS = {
    "permuted labels": "memorized examples",
    "labels were permuted": "examples are memorized ones",
    "unpermuted": "typical",
    "permuted": "memorized",
}
_ANY = re.compile("|".join(f"\\b{words}\\b" for words in _WORDS), re.IGNORECASE)


def in_words_of(kind: str | None, text: str) -> str:
    """The text as it is; where ``kind`` is memorized, with the words of such examples (canaries of a text, or training
    examples that a file marks) in place of those of permuted labels.

    >>> in_words_of("memorized", "Permuted examples come apart at h2; unpermuted ones do not.")
    'Memorized examples come apart at h2; typical ones do not.'
    """
    return _ANY.sub(_said, text) if kind == MEMORIZED else text


def _said(found: re.Match[str]) -> str:
    words = _WORDS[found[0].lower()]
    return words.capitalize() if found[0][0].isupper() else words
