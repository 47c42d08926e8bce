"""Models by name on the command line: ``zoo:inception_v3@512``, ``light:inception_v1``.

``zoo:NAME[@SIZE[xBATCH]]`` is a network of the zoo at an image size (or number of tokens) and a
batch; ``light:NAME`` a network of the ``onnx`` package with seeded weights.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hios.errors import UnsupportedModel
from hios_tvm.models import zoo
from hios_tvm.models.light import LIGHT_NETWORKS, load_light

if TYPE_CHECKING:
    import onnx

__all__ = ["is_model_reference", "load_model_reference", "parse_zoo_reference"]

_FORM = re.compile(r"(?P<name>[A-Za-z0-9_]+)(?:@(?P<size>\d+)(?:x(?P<batch>\d+))?)?")


def is_model_reference(text: str) -> bool:
    """Return whether a command-line argument names a network rather than a file.

    Examples
    --------
    >>> is_model_reference("zoo:vgg16@64x8"), is_model_reference("models/vgg16.onnx")
    (True, False)
    """
    return text.startswith(("zoo:", "light:"))


def load_model_reference(text: str, seed: int = 0) -> onnx.ModelProto:
    """Build the network that a reference names.

    Parameters
    ----------
    text : str
        ``zoo:NAME``, ``zoo:NAME@SIZE``, ``zoo:NAME@SIZExBATCH`` or ``light:NAME``.
    seed : int
        Seed of the weights.

    Raises
    ------
    UnsupportedModel
        When the text has another form or names no known network; the message lists them.
    InvalidOption
        When the size or the batch is out of range.
    """
    kind, _, rest = text.partition(":")
    if kind == "light" and rest:
        if rest.removeprefix("light_") not in LIGHT_NETWORKS:
            raise UnsupportedModel(
                f"there is no light network {rest!r}; there are {', '.join(LIGHT_NETWORKS)}"
            )
        return load_light(rest, seed)
    name, size, batch = parse_zoo_reference(text)
    return zoo.build(name, size, batch, seed)


def parse_zoo_reference(text: str) -> tuple[str, int | None, int]:
    """Return name, size and batch of ``zoo:NAME[@SIZE[xBATCH]]``; the size None if not given.

    Raises
    ------
    UnsupportedModel
        When the text has another form or names no network; the message lists them.

    Examples
    --------
    >>> parse_zoo_reference("zoo:vgg16@64x8"), parse_zoo_reference("zoo:alexnet")
    (('vgg16', 64, 8), ('alexnet', None, 1))
    """
    kind, _, rest = text.partition(":")
    form = _FORM.fullmatch(rest)
    if kind != "zoo" or form is None or form["name"] not in zoo.NETWORKS:
        raise UnsupportedModel(
            f"{text!r} names no model; use zoo:NAME, zoo:NAME@SIZE or zoo:NAME@SIZExBATCH with "
            f"NAME one of {', '.join(zoo.NETWORKS)}, or light:NAME with NAME one of "
            f"{', '.join(LIGHT_NETWORKS)}"
        )
    size = None if form["size"] is None else int(form["size"])
    return form["name"], size, int(form["batch"] or 1)
