"""The plan and the table of ``manigeo lens``, printed."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from manigeo.kinds import LEFT_OUT, VALIDATION, in_order
from manigeo.per_example.table import own_kinds
from manigeo.text.cells import blocks as blocks_of
from manigeo.text.cells import listed

_METRICS = ("lens_accuracy", "lens_exact")


def describe_lens(blocks: Sequence[str], examples: pd.DataFrame, most: int | None) -> str:
    """Describe which blocks are read, and of how many examples.

    >>> examples = pd.DataFrame({"split": ["memorized"] * 3 + ["test"], "permuted": False})
    >>> describe_lens(["block1", "block2"], examples, 2)
    '2 blocks (block1, block2), read by the head of the network, of test 1, memorized 2 examples'
    """
    counts = Counter(own_kinds(examples[~examples["split"].isin([VALIDATION, LEFT_OUT])]).tolist())
    sizes = ", ".join(f"{kind} {min(counts[kind], most or counts[kind])}" for kind in in_order(counts))
    return f"{len(blocks)} blocks ({listed(blocks)}), read by the head of the network, of {sizes} examples"


def lens_report(table: pd.DataFrame) -> str:
    """Share of the examples that are answered by their label at each block, and of whole sequences; one column per kind."""
    return "\n\n".join(blocks_of(table[table["kind"] != VALIDATION], _METRICS))
