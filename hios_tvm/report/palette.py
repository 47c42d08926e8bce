"""One colour per kind of operator and per device, the same in every picture."""

import colorsys
import zlib

__all__ = ["COPY_COLOUR", "colour_of", "device_colour", "ink_on"]

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

# (on light, on dark) ground; hues after Okabe and Ito, "Color Universal Design", 2008.
_DEVICES = (
    ("#0072b2", "#3d9fdb"),
    ("#e69f00", "#f0b53a"),
    ("#009e73", "#18a980"),
    ("#cc79a7", "#dd98bf"),
    ("#56b4e9", "#8fd0f5"),
    ("#d55e00", "#ef7f2d"),
    ("#8c7d12", "#f0e442"),
    ("#5b6675", "#a8b2c1"),
)


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


def device_colour(device: int) -> tuple[str, str]:
    """Return the colours of a device on light and on dark ground.

    The order is that of M. Okabe and K. Ito's set, which people with any kind of colour vision
    tell apart, without its black; the ninth device has the colour of the first again.
    """
    return _DEVICES[device % len(_DEVICES)]
