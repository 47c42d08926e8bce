"""NASNet-A (Zoph et al., CVPR 2018, figure 4, appendix A.4): large 6 @ 4032, mobile 4 @ 1056.

A cell sees the outputs of the last two cells. Where they differ in size, the older one is
brought down by two strided 1×1 convolutions side by side. No operator lies on every path
through the cells, so the network is one block with one part a cell, which is how IOS searches
it; its widest part is the first cell of a stage with 18 units of which 8 can run at
once. Batch normalisation is folded: one bias behind each separable convolution.
"""

from collections.abc import Callable

from hios_tvm.models.blocks import Block
from hios_tvm.models.builder import (
    conv2d,
    get_parts,
    identity,
    linear,
    placeholder,
    pool2d,
    relu,
    relu_conv,
    relu_sep_conv,
    reset_name,
)
from hios_tvm.models.graph import Graph
from hios_tvm.models.values import Value
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["nasnet_large", "nasnet_mobile"]


def nasnet_large(image_size: int = 331, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build NASNet-A large: 6 cells a stage, 4032 features at the end.

    Parameters
    ----------
    image_size : int
        Height and width of the image, at least 3.
    width : float
        Multiplier of all channels.
    classes : int
        Outputs of the classifier.
    """
    return _nasnet("nasnet_large", image_size, width, classes, 6, 96, 168, skip_reduction=True)


def nasnet_mobile(image_size: int = 224, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build NASNet-A mobile: 4 cells a stage, 1056 features at the end.

    Parameters
    ----------
    image_size, width, classes
        As for `nasnet_large`.
    """
    return _nasnet("nasnet_mobile", image_size, width, classes, 4, 32, 44, skip_reduction=False)


def _nasnet(
    name: str,
    image_size: int,
    width: float,
    classes: int,
    cells: int,
    stem_filters: int,
    filters: int,
    *,
    skip_reduction: bool,
) -> Graph:
    reset_name()
    image = placeholder((3, image_size, image_size))
    block = Block(image.node)
    stem = conv2d(
        block, [[image]], scaled(stem_filters, width), (3, 3), (2, 2), (0, 0), act="identity"
    )
    # The first stem cell has a quarter of the channels.
    filters = scaled(filters, width, multiple=4)
    first = _reduction_cell(block, stem, stem, filters // 4, adjust=False)
    second = _reduction_cell(block, first, stem, filters // 2)
    outputs = [image, stem, first, second]
    for stage in range(3):
        channels = filters << stage
        if stage:
            outputs.append(_reduction_cell(block, outputs[-1], outputs[-2], channels))
        for cell in range(cells):
            # Large feeds the first cell behind a reduction from before the cell that fed the
            # reduction; mobile from that cell itself.
            skips = stage > 0 and cell == 0 and skip_reduction
            older = outputs[-3] if skips else outputs[-2]
            outputs.append(_normal_cell(block, outputs[-1], older, channels))
    features = pool2d(block, [[relu(block, [[outputs[-1]]])]], "global_avg")
    outputs.append(linear(block, [[features]], classes, is_exit=True))
    block.parts = get_parts(block, outputs)
    return Graph(name, image.node, [block])


def _separable(block: Block, value: Value, channels: int, kernel: int, stride: int = 1) -> Value:
    size, padding = (kernel, kernel), (kernel // 2, kernel // 2)
    value = relu_sep_conv(block, [[value]], channels, size, (stride, stride), padding)
    return relu_sep_conv(block, [[value]], channels, size, (1, 1), padding)


def _pool(block: Block, value: Value, kind: str, stride: int = 1) -> Value:
    return pool2d(block, [[value]], kind, (3, 3), (stride, stride), (1, 1))


def _adjusted(block: Block, older: Value, newer: Value, channels: int) -> Value:
    """Bring the output of the cell before the last to the size of the last, and to `channels`."""
    if older.shape[1:] == newer.shape[1:]:
        return relu_conv(block, [[older]], channels)
    halves = [
        relu_conv(block, [[older]], part, stride=(2, 2))
        for part in (channels // 2, channels - channels // 2)
    ]
    return identity(block, [[half] for half in halves])


def _normal_cell(block: Block, newer: Value, older: Value, channels: int) -> Value:
    p = _adjusted(block, older, newer, channels)
    h = relu_conv(block, [[newer]], channels)
    return identity(
        block,
        [
            [p],
            [_separable(block, h, channels, 5), _separable(block, p, channels, 3)],
            [_separable(block, p, channels, 5), _separable(block, p, channels, 3)],
            [_pool(block, h, "avg"), p],
            [_pool(block, p, "avg"), _pool(block, p, "avg")],
            [_separable(block, h, channels, 3), h],
        ],
    )


def _reduction_cell(
    block: Block, newer: Value, older: Value, channels: int, *, adjust: bool = True
) -> Value:
    p = _adjusted(block, older, newer, channels) if adjust else older
    h = relu_conv(block, [[newer]], channels)

    def pair(left: Callable[[], Value], kernel: int) -> list[Value]:
        return [left(), _separable(block, p, channels, kernel, stride=2)]

    first = identity(block, [pair(lambda: _separable(block, h, channels, 5, stride=2), 7)])
    second = identity(block, [pair(lambda: _pool(block, h, "max", stride=2), 7)])
    third = pair(lambda: _pool(block, h, "avg", stride=2), 5)
    fourth = [_pool(block, first, "avg"), second]
    fifth = [_separable(block, first, channels, 3), _pool(block, h, "max", stride=2)]
    return identity(block, [[second], third, fourth, fifth])
