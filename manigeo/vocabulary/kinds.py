"""Words of the kinds: what is written of permuted labels, said of memorized examples where no labels were permuted."""

import re

from manigeo.kinds import CONTROL, MEMORIZED, TYPICAL

_WORDS = {
    "permuted labels": "memorized examples",
    "labels were permuted": "examples are memorized ones",
    "unpermuted": "typical",
    "permuted": "memorized",
}
_IMAGES = {
    "unpermuted": "training images that kept their labels",
    "permuted": "training images with permuted labels, grouped and scored by these, which the network was trained on",
    "restored": "the same images, by their true labels",
    "test": "images held out",
}
_SEQUENCES = {
    MEMORIZED: "what follows in canaries, random sequences planted in the training text, or training examples that a file "
    "marks as memorized",
    TYPICAL: "what follows in the sequences of the training text, or training examples that a file marks as typical",
    CONTROL: "what follows in random sequences that were drawn as the canaries and never trained on",
    "test": "examples held out",
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


def kinds_in_words(kind: str | None) -> list[tuple[str, str]]:
    """The kinds beside the one that memorization alone answers, itself among them, and what each is.

    >>> [name for name, _ in kinds_in_words("memorized")]
    ['memorized', 'typical', 'control', 'test']
    """
    return list((_SEQUENCES if kind == MEMORIZED else _IMAGES).items())
