"""RetinaNet on ResNet-50 and a feature pyramid (Lin et al., ICCV 2017): many heads at once.

A top-down path joins features of three strides; two convolutions go on to strides 64 and 128
(section 4 there, with level 6 computed from level 5 of the pyramid). Two heads of four
convolutions and a prediction, one for classes and one for boxes, run on each of the five levels
with shared weights: ten chains that do not depend on each other.
"""

import numpy as np

from hios_tvm.models.draft import OnnxDraft
from hios_tvm.models.graph import Graph
from hios_tvm.models.onnx_export import emit_graph
from hios_tvm.models.weights import BIAS_STD, he_std
from hios_tvm.models.zoo.resnet50 import resnet50_stages
from hios_tvm.models.zoo.scaling import scaled

__all__ = ["retinanet"]

CLASSES = 91
ANCHORS = 9
_BOX = 4


def retinanet(image_size: int = 800, batch: int = 1, width: float = 1.0) -> OnnxDraft:
    """Build RetinaNet up to its raw predictions, before box decoding and suppression.

    Parameters
    ----------
    image_size : int
        Height and width of the image.
    batch : int
        Images in one run.
    width : float
        Multiplier of all channels except predictions.

    Returns
    -------
    OnnxDraft
        Input ``data``; outputs ``scores`` (batch, anchors, 91) and ``boxes`` (batch, anchors, 4).
    """
    image, blocks, stages = resnet50_stages(image_size, width)
    draft = OnnxDraft("retinanet")
    data = draft.input("data", (batch, 3, image_size, image_size))
    tensors = emit_graph(Graph("resnet50", image.node, blocks), draft, data)
    layers = _Layers(draft, scaled(256, width))

    laterals = []
    for level, feature in enumerate(stages[1:], start=3):
        name = tensors[feature.node.name]
        laterals.append(layers.conv(name, f"lateral{level}", feature.shape[0], kernel=1))
    sides = [feature.shape[1] for feature in stages[1:]]
    for index in (1, 0):
        up = layers.upsample(laterals[index + 1], f"up{index + 3}", batch, sides[index])
        laterals[index] = draft.op("Add", [laterals[index], up], f"merge{index + 3}")
    pyramid = [
        layers.conv(lateral, f"pyramid{level}", layers.channels)
        for level, lateral in enumerate(laterals, start=3)
    ]
    pyramid.append(layers.conv(pyramid[-1], "pyramid6", layers.channels, stride=2))
    rectified = draft.op("Relu", [pyramid[-1]], "pyramid6.relu")
    pyramid.append(layers.conv(rectified, "pyramid7", layers.channels, stride=2, rectified=True))
    for _ in range(2):
        sides.append((sides[-1] + 1) // 2)

    anchors = ANCHORS * sum(side * side for side in sides)
    for output, size in (("scores", CLASSES), ("boxes", _BOX)):
        levels = [
            layers.head(value, output, f"level{level}", size, batch)
            for level, value in enumerate(pyramid, start=3)
        ]
        draft.op("Concat", levels, output, axis=1)
        draft.output(output, (batch, anchors, size))
    return draft


class _Layers:
    """Convolutions of one width on a draft, weights shared by name."""

    def __init__(self, draft: OnnxDraft, channels: int) -> None:
        self.draft = draft
        self.channels = channels

    def conv(
        self,
        value: str,
        name: str,
        in_channels: int,
        out_channels: int | None = None,
        *,
        kernel: int = 3,
        stride: int = 1,
        rectified: bool = False,
        shared: str | None = None,
    ) -> str:
        weights = shared or name
        out_channels = out_channels or self.channels
        if f"{weights}.weight" not in self.draft.weights:
            shape = (out_channels, in_channels, kernel, kernel)
            std = he_std(in_channels * kernel * kernel, rectified=rectified)
            self.draft.weight(f"{weights}.weight", shape, std)
            self.draft.weight(f"{weights}.bias", (out_channels,), BIAS_STD)
        return self.draft.op(
            "Conv",
            [value, f"{weights}.weight", f"{weights}.bias"],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )

    def upsample(self, value: str, name: str, batch: int, side: int) -> str:
        shape = np.array([batch, self.channels, side, side], np.int64)
        sizes = self.draft.constant(f"{name}.sizes", shape)
        return self.draft.op(
            "Resize",
            [value, "", "", sizes],
            name,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def head(self, value: str, head: str, level: str, size: int, batch: int) -> str:
        """Run a head on one level; return (batch, anchors of the level, size)."""
        for index in range(4):
            name = f"{head}.{level}.conv{index}"
            value = self.conv(
                value, name, self.channels, rectified=index > 0, shared=f"{head}.conv{index}"
            )
            value = self.draft.op("Relu", [value], f"{name}.relu")
        value = self.conv(
            value,
            f"{head}.{level}.predict",
            self.channels,
            ANCHORS * size,
            rectified=True,
            shared=f"{head}.predict",
        )
        value = self.draft.op("Transpose", [value], f"{head}.{level}.last", perm=[0, 2, 3, 1])
        shape = self.draft.constant(f"shape.{head}", np.array([batch, -1, size], np.int64))
        return self.draft.op("Reshape", [value, shape], f"{head}.{level}.rows")
