"""Sentences of a small grammar, drawn by a seed: a text that can be learned in seconds and needs no file."""

import numpy as np

_NOUNS = ("dog", "cat", "bird", "farmer", "child", "doctor", "king", "fox", "teacher", "sailor")
_ADJECTIVES = ("small", "old", "happy", "quiet", "brown", "clever", "tired", "young")
_VERBS = ("see", "follow", "like", "help", "greet", "hear", "remember", "watch")
_PLACES = ("near the river", "in the garden", "behind the house", "under the tree", "at the market", "on the road")
_TIMES = ("today", "every morning", "at night", "in winter", "again")


def sentences(n: int, *, seed: int = 0) -> str:
    """``n`` sentences with a subject, a verb that agrees with it, an object and, at times, a place and a time.

    >>> print(sentences(2, seed=2))
    the birds help a small teacher near the river. the clever kings hear the kings on the road in winter.
    """
    rng = np.random.default_rng(seed)
    return " ".join(_sentence(rng) for _ in range(n))


def _sentence(rng: np.random.Generator) -> str:
    plural = rng.random() < 0.5
    words = [_noun_phrase(rng, plural), _one(rng, _VERBS) + "s" * (not plural), _noun_phrase(rng, rng.random() < 0.5)]
    words += [_one(rng, _PLACES)] * (rng.random() < 0.5) + [_one(rng, _TIMES)] * (rng.random() < 0.3)
    return " ".join(words) + "."


def _noun_phrase(rng: np.random.Generator, plural: bool) -> str:
    article = "the" if plural or rng.random() < 0.5 else "a"
    adjective = [_one(rng, _ADJECTIVES)] * (rng.random() < 0.5)
    noun = _one(rng, _NOUNS)
    noun = {"fox": "foxes", "child": "children"}.get(noun, noun + "s") if plural else noun
    article = "an" if article == "a" and (adjective or [noun])[0][0] in "aeiou" else article
    return " ".join([article, *adjective, noun])


def _one(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]
