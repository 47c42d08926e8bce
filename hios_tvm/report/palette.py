"""One colour per kind of operator, the same in every picture."""

import colorsys
import zlib

__all__ = ["COPY_COLOUR", "colour_of", "ink_on"]

COPY_COLOUR = "#8a94a6"

# Frequent kinds stand far apart in hue; kinds that live together differ in lightness too.
_COLOURS = {
    "conv2d": "#3b6fb6",
    "depthwise": "#6fb1e0",
    "conv2d_transpose": "#274b87",
    "dense": "#7a52a8",
    "matmul": "#9a78c4",
    "pool": "#e39a3b",
    "concat": "#4d9a83",
    "elementwise": "#8fbf6a",
    "broadcast": "#b3cf7d",
    "norm": "#c9657f",
    "softmax": "#d9869c",
    "reduce": "#c2543d",
    "layout": "#b6a999",
    "data": "#b6a999",
    "copy": "#b6a999",
    "opaque": "#3b6fb6",
}


def colour_of(kind: str) -> str:
    """Return the colour of a kind as ``#rrggbb``.

    Kinds without a colour of their own get one from their name, so that it never depends on
    which other kinds a picture holds.
    """
    if kind in _COLOURS:
        return _COLOURS[kind]
    hue = zlib.crc32(kind.encode()) % 360 / 360
    red, green, blue = colorsys.hls_to_rgb(hue, 0.55, 0.42)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def ink_on(colour: str) -> str:
    """Return the text colour that reads best on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "#1c2430" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "#ffffff"
