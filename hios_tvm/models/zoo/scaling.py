"""The width multiplier: the same network with fewer channels, for quick tests."""

from hios.errors import InvalidOption

__all__ = ["scaled"]


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """Return `width` times the channels, rounded to a multiple and at least one multiple.

    Parameters
    ----------
    channels : int
        Channels at full width.
    width : float
        Above 0 and at most 4.
    multiple : int
        What the result must be divisible by.

    Raises
    ------
    InvalidOption
        When the width is out of range.

    Examples
    --------
    >>> scaled(96, 1.0), scaled(96, 0.1), scaled(42, 0.5, multiple=2)
    (96, 10, 20)
    """
    if not 0.0 < width <= 4.0:
        raise InvalidOption(f"width is {width}; it must be above 0 and at most 4")
    return max(1, round(channels * width / multiple)) * multiple
