"""A data set without a download: one hundred characters in the twelve DejaVu text faces that come with matplotlib.

Every image is one character, in a random face and size, turned, shifted and noisy. Some characters look alike (o and
omicron, Latin and Cyrillic A): no network reaches a test accuracy of one, as with natural images that are ambiguous.
"""

import string
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw, ImageFont

GREEK = "".join(chr(code) for code in range(0x3B1, 0x3CA) if code != 0x3C2)  # alpha to omega, without the final sigma
CYRILLIC = "".join(chr(code) for code in range(0x410, 0x41E))  # the first fourteen capitals
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase + GREEK + CYRILLIC
FACES = tuple(
    f"DejaVu{family}{style}"
    for family, slanted in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
)
ROTATION, SHIFT, NOISE = 15.0, 1.0, 0.05  # degrees; pixels of a 20-pixel image; standard deviation (ink is 1)


def render_glyphs(
    characters: str, per_class: int, *, size: int, rng: np.random.Generator
) -> Float32[np.ndarray, "images 1 size size"]:
    """Images of each character in turn, ``per_class`` of each; paper is 0, ink is 1, before the noise.

    Font sizes are 13 to 17 pixels on the usual 20 and scale with ``size``, as does the shift.
    """
    n = len(characters) * per_class
    faces, heights = rng.integers(len(FACES), size=n), rng.integers(round(0.65 * size), round(0.85 * size) + 1, size=n)
    angles, shifts = rng.uniform(-ROTATION, ROTATION, n), rng.uniform(-SHIFT, SHIFT, (n, 2)) * size / 20
    images = rng.normal(0.0, NOISE, (n, 1, size, size)).astype(np.float32)
    for i in range(n):
        font = _font(FACES[faces[i]], int(heights[i]))
        images[i, 0] += _glyph(characters[i // per_class], font, size, float(angles[i]), shifts[i])
    return images


def _glyph(
    character: str, font: ImageFont.FreeTypeFont, size: int, angle: float, shift: np.ndarray
) -> Float32[np.ndarray, "size size"]:
    left, top, right, bottom = font.getbbox(character)
    x, y = (size - left - right) / 2, (size - top - bottom) / 2
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).text((int(x), int(y)), character, fill=255, font=font)  # a fractional place cuts rows off
    offset = (x - int(x) + shift[0], y - int(y) + shift[1])
    turned = image.rotate(angle, Image.Resampling.BILINEAR, translate=offset)
    return np.asarray(turned, dtype=np.float32) / 255


@cache
def _font(face: str, height: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # slow to import, and other data do not need it

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
    return ImageFont.truetype(path, height, layout_engine=ImageFont.Layout.BASIC)  # the other engine is not everywhere
