"""Inception-v3 (Szegedy et al., CVPR 2016, table 1 and figures 5 to 7), without auxiliary head.

Block names follow the common reading of the paper: A at 35×35 (figure 5), B its reduction, C at
17×17 with factorised 7×7 (figure 6), D its reduction, E at 8×8 with expanded filter banks
(figure 7). Batch normalisation is folded into the convolutions. E is the largest block that IOS
searches: 11 operators of which 6 can run at once.
"""

from hios_tvm.models.blocks import Block
from hios_tvm.models.builder import (
    conv2d,
    identity,
    linear,
    placeholder,
    pool2d,
    reset_name,
)
from hios_tvm.models.graph import Graph
from hios_tvm.models.node_options import Pair
from hios_tvm.models.values import Value
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["inception_v3"]


class _Blocks:
    """Builds the blocks in order, each entered by the exit of the one before."""

    def __init__(self, image: Value, width: float) -> None:
        self.last = image
        self.width = width
        self.blocks: list[Block] = []

    def open(self) -> Block:
        self.blocks.append(Block(self.last.node))
        return self.blocks[-1]

    def conv(
        self,
        value: Value,
        channels: int,
        kernel: Pair = (1, 1),
        *,
        stride: int = 1,
        same: bool = True,
    ) -> Value:
        padding = (kernel[0] // 2, kernel[1] // 2) if same else (0, 0)
        channels = scaled(channels, self.width)
        return conv2d(self.blocks[-1], [[value]], channels, kernel, (stride, stride), padding)

    def pooled(self, value: Value, channels: int) -> Value:
        average = pool2d(self.blocks[-1], [[value]], "avg", (3, 3), (1, 1), (1, 1))
        return self.conv(average, channels)

    def close(self, *branches: Value) -> None:
        terms = [[branch] for branch in branches]
        self.last = identity(self.blocks[-1], terms, is_exit=True)


def inception_v3(image_size: int = 299, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build Inception-v3.

    Parameters
    ----------
    image_size : int
        Height and width of the image, at least 75.
    width : float
        Multiplier of all channels.
    classes : int
        Outputs of the classifier.
    """
    reset_name()
    image = placeholder((3, image_size, image_size))
    net = _Blocks(image, width)
    _stem(net)
    for pool_channels in (32, 64, 64):
        _block_a(net, pool_channels)
    _block_b(net)
    for channels in (128, 160, 160, 192):
        _block_c(net, channels)
    _block_d(net)
    _block_e(net)
    _block_e(net)
    head = net.open()
    pooled = pool2d(head, [[net.last]], "global_avg")
    linear(head, [[pooled]], classes, is_exit=True)
    return Graph("inception_v3", image.node, net.blocks)


def _stem(net: _Blocks) -> None:
    block = net.open()
    v = net.conv(net.last, 32, (3, 3), stride=2, same=False)
    v = net.conv(v, 32, (3, 3), same=False)
    v = net.conv(v, 64, (3, 3))
    v = pool2d(block, [[v]], "max", (3, 3), (2, 2))
    v = net.conv(v, 80)
    v = net.conv(v, 192, (3, 3), same=False)
    net.last = pool2d(block, [[v]], "max", (3, 3), (2, 2), is_exit=True)


def _block_a(net: _Blocks, pool_channels: int) -> None:
    v = net.last
    net.open()
    single = net.conv(v, 64)
    five = net.conv(net.conv(v, 48), 64, (5, 5))
    double = net.conv(net.conv(net.conv(v, 64), 96, (3, 3)), 96, (3, 3))
    net.close(single, five, double, net.pooled(v, pool_channels))


def _block_b(net: _Blocks) -> None:
    v = net.last
    block = net.open()
    three = net.conv(v, 384, (3, 3), stride=2, same=False)
    double = net.conv(net.conv(v, 64), 96, (3, 3))
    double = net.conv(double, 96, (3, 3), stride=2, same=False)
    net.close(three, double, pool2d(block, [[v]], "max", (3, 3), (2, 2)))


def _block_c(net: _Blocks, channels: int) -> None:
    v = net.last
    net.open()
    single = net.conv(v, 192)
    seven = net.conv(net.conv(net.conv(v, channels), channels, (1, 7)), 192, (7, 1))
    double = net.conv(net.conv(net.conv(v, channels), channels, (7, 1)), channels, (1, 7))
    double = net.conv(net.conv(double, channels, (7, 1)), 192, (1, 7))
    net.close(single, seven, double, net.pooled(v, 192))


def _block_d(net: _Blocks) -> None:
    v = net.last
    block = net.open()
    three = net.conv(net.conv(v, 192), 320, (3, 3), stride=2, same=False)
    seven = net.conv(net.conv(net.conv(v, 192), 192, (1, 7)), 192, (7, 1))
    seven = net.conv(seven, 192, (3, 3), stride=2, same=False)
    net.close(three, seven, pool2d(block, [[v]], "max", (3, 3), (2, 2)))


def _block_e(net: _Blocks) -> None:
    v = net.last
    net.open()
    single = net.conv(v, 320)
    three = net.conv(v, 384)
    three_wide, three_high = net.conv(three, 384, (1, 3)), net.conv(three, 384, (3, 1))
    double = net.conv(net.conv(v, 448), 384, (3, 3))
    double_wide, double_high = net.conv(double, 384, (1, 3)), net.conv(double, 384, (3, 1))
    net.close(single, three_wide, three_high, double_wide, double_high, net.pooled(v, 192))
