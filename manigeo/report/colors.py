"""Colours of a figure on a dark page: greys turned round, others as bright as it takes to be seen.

Contrast is that of the Web Content Accessibility Guidelines 2.1, (L + .05) / (l + .05) of relative luminances; text
wants 4.5, graphical objects 3.
"""

import re
from collections.abc import Sequence

PAPER, INK = "#14171a", "#e4e7ea"
LEAST_CONTRAST = 4.5
_COLOR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")
_GREY = 0.05  # channels that differ by less


def dark_rules(scope: str, styles: Sequence[str], kept: str) -> str:
    """Rules of a style sheet that change the colours of ``styles`` within ``scope``, but not within the class ``kept``."""
    found = dict.fromkeys(pair for style in styles for pair in _COLOR.findall(style))
    rules = [
        f'{scope} [style*="{what}: {color}"]:not(.{kept}):not(.{kept} *){{{what}:{dark}!important}}'
        for what, color in found
        if (dark := on_dark(color)) != color
    ]
    return "@media screen and (prefers-color-scheme:dark){" + "".join(rules) + "}"


def on_dark(color: str) -> str:
    """
    >>> on_dark("#ffffff"), on_dark("#000000"), on_dark("#fde725")
    ('#14171a', '#e4e7ea', '#fde725')
    """
    channels = _channels(color)
    if max(channels) - min(channels) < _GREY:
        return _mixed(INK, PAPER, sum(channels) / 3)
    steps = (_mixed(color, "#ffffff", step / 20) for step in range(21))
    return next(mixed for mixed in steps if contrast(mixed, PAPER) >= LEAST_CONTRAST)


def contrast(one: str, other: str) -> float:
    """
    >>> contrast("#ffffff", "#000000")
    21.0
    """
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(color)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _channels(color: str) -> list[float]:
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _mixed(one: str, other: str, share: float) -> str:
    """``share`` of the other."""
    pairs = zip(_channels(one), _channels(other), strict=True)
    return "#" + "".join(f"{round(255 * ((1 - share) * a + share * b)):02x}" for a, b in pairs)
