"""VGG-16 and AlexNet: chains, on which scheduling between operators can win nothing.

VGG-16 is configuration D of Simonyan and Zisserman, ICLR 2015, table 1. AlexNet is the
one-column variant of Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014 (64, 192, 384, 256, 256 channels), the one that today's model libraries hold,
not the two-column original of 2012. The features are pooled to a fixed grid before the first
fully connected layer, so that other image sizes do not change the parameters.
"""

from hios_tvm.models.blocks import Block
from hios_tvm.models.builder import conv2d, linear, placeholder, pool2d, reset_name
from hios_tvm.models.graph import Graph
from hios_tvm.models.values import Value
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["alexnet", "vgg16"]


def vgg16(image_size: int = 224, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build VGG-16.

    Parameters
    ----------
    image_size : int
        Height and width of the image, at least 32.
    width : float
        Multiplier of all channels and of the hidden fully connected layers.
    classes : int
        Outputs of the classifier.
    """
    reset_name()
    image = placeholder((3, image_size, image_size))
    block = Block(image.node)
    value = image
    for repeats, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(repeats):
            value = conv2d(block, [[value]], scaled(channels, width), (3, 3), padding=(1, 1))
        value = pool2d(block, [[value]], "max", (2, 2), (2, 2))
    _classifier(block, value, 7, width, classes)
    return Graph("vgg16", image.node, [block])


def alexnet(image_size: int = 224, width: float = 1.0, classes: int = 1000) -> Graph:
    """Build AlexNet, the one-column variant of 2014.

    Parameters
    ----------
    image_size : int
        Height and width of the image, at least 63.
    width : float
        Multiplier of all channels and of the hidden fully connected layers.
    classes : int
        Outputs of the classifier.
    """
    reset_name()
    image = placeholder((3, image_size, image_size))
    block = Block(image.node)
    value = conv2d(block, [[image]], scaled(64, width), (11, 11), (4, 4), (2, 2))
    value = pool2d(block, [[value]], "max", (3, 3), (2, 2))
    value = conv2d(block, [[value]], scaled(192, width), (5, 5), padding=(2, 2))
    value = pool2d(block, [[value]], "max", (3, 3), (2, 2))
    for channels in (384, 256, 256):
        value = conv2d(block, [[value]], scaled(channels, width), (3, 3), padding=(1, 1))
    value = pool2d(block, [[value]], "max", (3, 3), (2, 2))
    _classifier(block, value, 6, width, classes)
    return Graph("alexnet", image.node, [block])


def _classifier(block: Block, value: Value, grid: int, width: float, classes: int) -> None:
    side = value.shape[1]
    if side > grid:
        stride = side // grid
        kernel = side - (grid - 1) * stride
        value = pool2d(block, [[value]], "avg", (kernel, kernel), (stride, stride))
    hidden = scaled(4096, width)
    value = linear(block, [[value]], hidden, act="relu")
    value = linear(block, [[value]], hidden, act="relu")
    linear(block, [[value]], classes, is_exit=True)
