"""One scale of depth for all methods: the layers with parameters, in order of execution, from the first to the last.

Interventions exchange these layers. Activations are read at many places, and belong to the layer whose block they are the
output of: after its normalisation and nonlinearity, since a linear probe cannot see at a pre-activation what the layer
stores. The input comes before all layers and is none.
"""

from collections.abc import Iterable, Sequence

INPUT = "input"


def common_scale(exchanged: Iterable[Sequence[str]], read: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The layers of the network: those of the interventions' tables, of which the longest list is taken, or else those that
    activations were read at.

    >>> common_scale([("h1", "h2")], [("input", "h1.linear", "h1", "h2")])
    ('h1', 'h2')
    >>> common_scale([], [("input", "h1", "h2")])
    ('h1', 'h2')
    """
    known = [tuple(layers) for layers in exchanged] or [tuple(layers) for layers in read]
    longest = max(known, key=len, default=())
    return tuple(name for name in longest if name != INPUT)


def read_at(places: Sequence[str], scale: Sequence[str]) -> dict[str, int]:
    """For each layer of the scale the position in ``places``, in order of execution, of the output of its block: the last
    place that belongs to it. A place belongs to the layer of its name, to one that it is inside of or that is inside of it,
    and else to the layer of the place before it. Layers that nothing was read of are left out.

    >>> read_at(("input", "h1.linear", "h1", "h2"), ("h1.linear", "h2.linear"))
    {'h1.linear': 2, 'h2.linear': 3}
    >>> read_at(("conv1", "bn1", "relu", "fc"), ("conv1", "fc"))
    {'conv1': 2, 'fc': 3}
    """
    found: dict[str, int] = {}
    current = -1
    for position, place in enumerate(places):
        if place == INPUT:
            continue
        current = _belongs_to(place, scale, current)
        if current >= 0:
            found[scale[current]] = position
    return found


def _belongs_to(place: str, scale: Sequence[str], current: int) -> int:
    """Position on the scale: of a block with several layers the last one, whose output it gives; never back."""
    matching = [i for i, layer in enumerate(scale) if same_layer(place, layer)]
    return max([current, *matching])


def same_layer(place: str, layer: str) -> bool:
    """True for equal names, and where one is inside the other, as ``h1.linear`` is inside ``h1``.

    >>> same_layer("h1", "h1.linear"), same_layer("h1", "h10")
    (True, False)
    """
    return place == layer or place.startswith(f"{layer}.") or layer.startswith(f"{place}.")


def unwrapped(layers: Sequence[str], others: Iterable[str]) -> tuple[str, ...]:
    """The layers by the names that ``others`` give them: without a first part that all have, as Lightning's ``model.`` in
    weights that were read without the network, where some of them are known then and none before.

    >>> unwrapped(("model.0", "model.2"), ["0", "2"]), unwrapped(("model.0", "model.2"), ["model.0"])
    (('0', '2'), ('model.0', 'model.2'))
    """
    known, (first, dot, _) = set(others), layers[0].partition(".")
    shorter = tuple(name.removeprefix(f"{first}.") for name in layers)
    wrapped = dot and all(name.startswith(f"{first}.") for name in layers)
    return shorter if wrapped and known.isdisjoint(layers) and not known.isdisjoint(shorter) else tuple(layers)


def layer_list(scale: Sequence[str], chosen: Iterable[int]) -> str:
    """Layers in words, neighbours as a range, each named once.

    >>> layer_list(("h1", "h2", "h3", "h4", "h5"), [0, 2, 3, 4])
    'h1 and h3 to h5'
    """
    runs: list[list[int]] = []
    for i in sorted(chosen):
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    parts = [part for run in runs for part in _run_words(scale, run)]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _run_words(scale: Sequence[str], run: Sequence[int]) -> list[str]:
    return [f"{scale[run[0]]} to {scale[run[-1]]}"] if len(run) > 2 else [scale[i] for i in run]
