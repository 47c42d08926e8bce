"""SqueezeNet 1.0 (Iandola et al., 2016, table 1), plain and with complex bypass (section 6).

A fire module squeezes by 1×1 convolutions and expands by 1×1 and 3×3 side by side. With complex
bypass every second module adds its input as it is and the others through a 1×1 convolution;
such a module is IOS's largest block: 6 operators of which 3 can run at once.
"""

from hios_tvm.models.blocks import Block
from hios_tvm.models.builder import conv2d, identity, placeholder, pool2d, reset_name
from hios_tvm.models.graph import Graph
from hios_tvm.models.values import Value
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["squeezenet", "squeezenet_bypass"]

_SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)
_POOL_BEFORE = (3, 7)


def squeezenet(image_size: int = 224, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build the plain SqueezeNet.

    Parameters
    ----------
    image_size : int
        Height and width of the image, at least 31.
    width : float
        Multiplier of all channels.
    classes : int
        Channels of the last convolution, which are the outputs.
    """
    return _squeezenet("squeezenet", image_size, width, classes, bypass=False)


def squeezenet_bypass(image_size: int = 224, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build SqueezeNet with complex bypass, the network of the IOS paper.

    Parameters
    ----------
    image_size, width, classes
        As for `squeezenet`.
    """
    return _squeezenet("squeezenet_bypass", image_size, width, classes, bypass=True)


def _squeezenet(name: str, image_size: int, width: float, classes: int, *, bypass: bool) -> Graph:
    reset_name()
    image = placeholder((3, image_size, image_size))
    block = Block(image.node)
    blocks = [block]
    # Padding 2 gives the 111×111 of table 1 from 224×224.
    value = conv2d(block, [[image]], scaled(96, width), (7, 7), (2, 2), (2, 2))
    value = pool2d(block, [[value]], "max", (3, 3), (2, 2), is_exit=True)
    for index, squeeze in enumerate(_SQUEEZE):
        if index in _POOL_BEFORE:
            blocks.append(Block(value.node))
            value = pool2d(blocks[-1], [[value]], "max", (3, 3), (2, 2), is_exit=True)
        blocks.append(Block(value.node))
        value = _fire(blocks[-1], value, scaled(squeeze, width), bypass=bypass)
    tail = Block(value.node)
    value = conv2d(tail, [[value]], classes)
    pool2d(tail, [[value]], "global_avg", is_exit=True)
    return Graph(name, image.node, [*blocks, tail])


def _fire(block: Block, value: Value, squeeze: int, *, bypass: bool) -> Value:
    expand = 4 * squeeze
    squeezed = conv2d(block, [[value]], squeeze)
    ones = conv2d(block, [[squeezed]], expand)
    threes = conv2d(block, [[squeezed]], expand, (3, 3), padding=(1, 1))
    if not bypass:
        return identity(block, [[ones], [threes]], is_exit=True)
    both = identity(block, [[ones], [threes]])
    fits = both.shape == value.shape
    around = value if fits else conv2d(block, [[value]], 2 * expand)
    return identity(block, [[both, around]], is_exit=True)
