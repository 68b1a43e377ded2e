"""The plan and the table of ``manigeo channels``, printed."""

from typing import TYPE_CHECKING

import pandas as pd

from manigeo.text.cells import as_text, cell, duration, flag_lines, in_order, wide
from manigeo.vocabulary import metric_words

if TYPE_CHECKING:
    from manigeo_extract.interventions.flip_tables import ChannelStudy

ALL = "(all)"
_OF_ALL = ("channels_to_flip", "channels_to_flip_median", "flipped", "flipped_control", "others_changed")


def describe_channels(study: "ChannelStudy") -> str:
    """Describe the examples, the channels of every layer, and the longest that it can take.

    Raises what :meth:`~manigeo_extract.interventions.flip_tables.ChannelStudy.examples` does.
    """
    place, most = study.run.place, study.plan.max_channels
    sizes = {kind: len(study.examples(kind)[0]) for kind in study.kinds}
    of_layers = {layer: sum(of.n for of in study.channels if of.layer == layer) for layer in study.layers}
    longest = sum(sizes.values()) * most * study.seconds_per_step()
    return (
        f"{place['run']}/{place['checkpoint']} (epoch {place['epoch']}): "
        f"{', '.join(f'{kind} {n}' for kind, n in sizes.items())} examples that are answered by their label\n"
        f"channels: {', '.join(f'{layer} {n}' for layer, n in of_layers.items())}\n"
        f"at most {most} of them removed for each example, {study.plan.reference} others to keep their answers: "
        f"{duration(longest)} at most on one core"
    )


def channels_report(table: pd.DataFrame) -> str:
    """Number of channels that flip an example, one line per metric; and their share in each layer; one column per kind."""
    whole = table[table["layer"] == ALL]
    named = pd.concat([whole[whole["metric"] == key].assign(layer=metric_words(key).name) for key in _OF_ALL])
    shares = table[table["metric"] == "channel_share"]
    chance = table[table["metric"] == "channel_share_chance"].drop_duplicates("layer").assign(kind="all channels")
    by_layer = pd.concat([shares, chance]).sort_values("depth", kind="stable")
    title = metric_words("channel_share").name
    return "\n\n".join(
        [
            as_text(wide(named)),
            *_intervals(whole),
            as_text(wide(by_layer, digits=metric_words("channel_share").digits), title),
            *flag_lines(whole[whole["metric"] == "channels_to_flip"]),
        ]
    )


def _intervals(whole: pd.DataFrame) -> list[str]:
    """The means with their 95 % intervals, in words."""
    values = {
        end: whole[whole["metric"] == f"channels_to_flip{end}"].set_index("kind")["value"]
        for end in ("", "_ci_low", "_ci_high")
    }
    said = [
        f"{kind} {cell(values[''][kind], digits=1)} [{cell(values['_ci_low'][kind], digits=1)}, "
        f"{cell(values['_ci_high'][kind], digits=1)}]"
        for kind in in_order(values[""].index)
    ]
    return [f"{metric_words('channels_to_flip').name}, mean and 95 % interval: {', '.join(said)}"]
