"""The operators a network is built of.

They carry the names, constructor arguments and exported configuration of the IOS and HIOS
builder, so a network written for it builds here. A `Sequential` is one unit for the scheduler
although it holds several operators. `Linear` is the one addition: classifiers need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hios.errors import InvalidGraph, InvalidOption
from hios_tvm.models.node import Node
from hios_tvm.models.node_options import Pair, choice, is_count, pair, positive
from hios_tvm.models.values import Inputs, combined_shape, element_count, terms_text

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Conv",
    "Element",
    "Identity",
    "Linear",
    "Node",
    "Placeholder",
    "Pool",
    "Relu",
    "Sequential",
]

ACTIVATIONS = ("relu", "sigmoid", "tanh", "identity")
"""What `act` of a convolution may be."""

POOL_TYPES = ("max", "avg", "global_max", "global_avg")
ELEMENT_TYPES = ("add", "mul")

FloatArray = npt.NDArray[np.float32]


class Placeholder(Node):
    """The input of a network."""

    __slots__ = ()

    def __init__(self, name: str, hint_name: str, output_shape: Sequence[int]) -> None:
        super().__init__("placeholder", name, hint_name, [[]], output_shape)
        if len(output_shape) != 3 or any(not is_count(extent) for extent in output_shape):
            raise InvalidOption(
                f"{self.owner} has output_shape {output_shape!r}; it must be three positive "
                "integers (channels, height, width)"
            )

    def infer_shape(self) -> None:
        """Keep the given shape."""

    def flops(self) -> int:
        """Return 0."""
        return 0

    def memory_access(self) -> int:
        """Return 0."""
        return 0

    def kernels(self) -> int:
        """Return 0."""
        return 0

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        return [f"[{self.hint_name}]placeholder"]


class Conv(Node):
    """A two-dimensional convolution with an activation.

    Parameters
    ----------
    out_channels : int
        Number of output channels.
    kernel, stride, padding : (int, int)
        Along height and width; the padding is the same on both sides and zero.
    groups : int
        Divides the input and the output channels; the input channels for a depthwise one.
    act : {"relu", "sigmoid", "tanh", "identity"}
        Applied to the output.
    bias : bool
        Whether a bias is added; not in the IOS builder, where it always is.

    Attributes
    ----------
    weight : numpy.ndarray or None
        float32 (out_channels, in_channels / groups, *kernel). Set it for trained weights; while
        it is None the export draws seeded ones.
    bias : numpy.ndarray or None
        float32 (out_channels,), likewise.
    """

    __slots__ = (
        "act",
        "bias",
        "groups",
        "has_bias",
        "kernel",
        "out_channels",
        "padding",
        "stride",
        "weight",
    )

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        out_channels: int,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        groups: int,
        act: str,
        output_shape: Sequence[int] | None,
        bias: bool = True,
    ) -> None:
        super().__init__("conv", name, hint_name, inputs, output_shape)
        self.out_channels = positive(out_channels, "out_channels", self.owner)
        self.kernel = pair(kernel, "kernel", 1, self.owner)
        self.stride = pair(stride, "stride", 1, self.owner)
        self.padding = pair(padding, "padding", 0, self.owner)
        self.groups = positive(groups, "groups", self.owner)
        self.act = choice(act, "act", ACTIVATIONS, self.owner)
        self.has_bias = bias
        self.weight: FloatArray | None = None
        self.bias: FloatArray | None = None

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(out_channels, in_channels / groups, kernel height, kernel width)."""
        return (self.out_channels, self.input_shape[0] // self.groups, *self.kernel)

    @property
    def bias_shape(self) -> tuple[int]:
        """(out_channels,)."""
        return (self.out_channels,)

    def infer_shape(self) -> None:
        """Set `output_shape`.

        Raises
        ------
        InvalidOption
            When the groups do not divide the channels, or the kernel does not fit the image.
        """
        channels, height, width = self.input_shape
        if channels % self.groups or self.out_channels % self.groups:
            raise InvalidOption(
                f"{self.owner} has groups={self.groups}, which does not divide its {channels} "
                f"input and {self.out_channels} output channels"
            )
        self.output_shape = (self.out_channels, *_windows((height, width), self))

    def macs(self) -> int:
        """Multiply-adds for one image."""
        return element_count(self.shape) * element_count(self.weight_shape[1:])

    def parameters(self) -> int:
        """Number of weights and biases."""
        return element_count(self.weight_shape) + self.out_channels * self.has_bias

    def own_flops(self) -> int:
        """Floating-point operations for one image: multiply-adds and the activation."""
        return 2 * self.macs() + element_count(self.shape) * (self.act != "identity")

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        size = "×".join(str(k) for k in self.kernel)
        return [f"[{self.hint_name}]conv {size}({terms_text(self.terms)})"]

    def _own_config(self) -> dict[str, Any]:
        return {
            "out_channels": self.out_channels,
            "kernel": list(self.kernel),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "groups": self.groups,
            "act": self.act,
            "has_bias": self.has_bias,
        }


class Linear(Node):
    """A fully connected layer over the flattened input; its output is (features, 1, 1).

    Parameters
    ----------
    out_features : int
        Number of outputs.
    act : {"relu", "sigmoid", "tanh", "identity"}
        Applied to the output.
    """

    __slots__ = ("act", "bias", "out_features", "weight")

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        out_features: int,
        act: str,
        output_shape: Sequence[int] | None,
    ) -> None:
        super().__init__("linear", name, hint_name, inputs, output_shape)
        self.out_features = positive(out_features, "out_features", self.owner)
        self.act = choice(act, "act", ACTIVATIONS, self.owner)
        self.weight: FloatArray | None = None
        self.bias: FloatArray | None = None

    @property
    def weight_shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        return self.out_features, element_count(self.input_shape)

    @property
    def bias_shape(self) -> tuple[int]:
        """(out_features,)."""
        return (self.out_features,)

    def infer_shape(self) -> None:
        """Set `output_shape` to (features, 1, 1)."""
        combined_shape(self.terms, self.owner)
        self.output_shape = (self.out_features, 1, 1)

    def macs(self) -> int:
        """Multiply-adds for one image."""
        return element_count(self.weight_shape)

    def parameters(self) -> int:
        """Number of weights and biases."""
        return element_count(self.weight_shape) + self.out_features

    def own_flops(self) -> int:
        """Floating-point operations for one image: multiply-adds and the activation."""
        return 2 * self.macs() + self.out_features * (self.act != "identity")

    def _own_config(self) -> dict[str, Any]:
        return {"out_features": self.out_features, "act": self.act}


class Pool(Node):
    """Maximum or average pooling; averages leave the padding out.

    Parameters
    ----------
    pool_type : {"max", "avg", "global_max", "global_avg"}
        The global ones ignore kernel, stride and padding.
    kernel, stride, padding : (int, int)
        Along height and width.
    """

    __slots__ = ("kernel", "padding", "pool_type", "stride")

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        pool_type: str,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        output_shape: Sequence[int] | None,
    ) -> None:
        super().__init__("pool", name, hint_name, inputs, output_shape)
        self.pool_type = choice(pool_type, "pool_type", POOL_TYPES, self.owner)
        self.kernel = pair(kernel, "kernel", 1, self.owner)
        self.stride = pair(stride, "stride", 1, self.owner)
        self.padding = pair(padding, "padding", 0, self.owner)

    @property
    def is_global(self) -> bool:
        """Whether the window is the whole image."""
        return self.pool_type.startswith("global_")

    def infer_shape(self) -> None:
        """Set `output_shape`.

        Raises
        ------
        InvalidOption
            When the kernel does not fit the image, or windows could lie in the padding alone.
        """
        channels, height, width = self.input_shape
        if self.is_global:
            self.kernel, self.stride, self.padding = (height, width), (1, 1), (0, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise InvalidOption(
                f"{self.owner} has padding {self.padding} for kernel {self.kernel}; "
                "it may be half the kernel at most"
            )
        self.output_shape = (channels, *_windows((height, width), self))

    def own_flops(self) -> int:
        """Floating-point operations for one image: one an element of each window."""
        return element_count(self.shape) * self.kernel[0] * self.kernel[1]

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        return [f"[{self.hint_name}]{self.pool_type} pool({terms_text(self.terms)})"]

    def _own_config(self) -> dict[str, Any]:
        return {
            "pool_type": self.pool_type,
            "kernel": list(self.kernel),
            "stride": list(self.stride),
            "padding": list(self.padding),
        }


class Element(Node):
    """Element-wise sum or product of the values of each term.

    Parameters
    ----------
    op_type : {"add", "mul"}
        What to do with the values of a term; terms are concatenated in both cases.
    """

    __slots__ = ("op_type",)

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        op_type: str,
        output_shape: Sequence[int] | None,
    ) -> None:
        super().__init__("element", name, hint_name, inputs, output_shape)
        self.op_type = choice(op_type, "op_type", ELEMENT_TYPES, self.owner)

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        sign = "*" if self.op_type == "mul" else "+"
        return [f"[{self.hint_name}]{terms_text(self.terms, sign)}"]

    def _own_config(self) -> dict[str, Any]:
        return {"op_type": self.op_type}


class Identity(Node):
    """The combined inputs as they are: the operator for a bare addition or concatenation."""

    __slots__ = ()

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        output_shape: Sequence[int] | None,
    ) -> None:
        super().__init__("identity", name, hint_name, inputs, output_shape)

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        return [f"[{self.hint_name}]{terms_text(self.terms)}"]


class Activation(Node):
    """An element-wise non-linearity.

    Parameters
    ----------
    act_type : {"relu", "tanh", "sigmoid"}
        The function.
    inplace : bool
        Kept for the configuration; memory is planned by the executor.
    """

    __slots__ = ("act_type", "inplace")

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        act_type: str,
        inplace: bool,
        output_shape: Sequence[int] | None,
    ) -> None:
        super().__init__("activation", name, hint_name, inputs, output_shape)
        self.act_type = choice(act_type, "act_type", ACTIVATIONS[:3], self.owner)
        self.inplace = inplace

    def own_flops(self) -> int:
        """Floating-point operations for one image: one an element."""
        return element_count(self.shape)

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        return [f"[{self.hint_name}]{self.act_type}({terms_text(self.terms)})"]

    def _own_config(self) -> dict[str, Any]:
        return {"act_type": self.act_type, "inplace": self.inplace}


class Relu(Node):
    """A rectifier, the same as `Activation` with ``act_type="relu"``."""

    __slots__ = ()

    def __init__(
        self,
        name: str,
        hint_name: str,
        inputs: Inputs | None,
        output_shape: Sequence[int] | None,
    ) -> None:
        super().__init__("relu", name, hint_name, inputs, output_shape)

    def own_flops(self) -> int:
        """Floating-point operations for one image: one an element."""
        return element_count(self.shape)


class Sequential(Node):
    """Operators in a row that the scheduler sees as one.

    Parameters
    ----------
    nodes : list of Node
        In order; the first one holds the inputs of the whole.
    """

    __slots__ = ("nodes",)

    def __init__(
        self,
        name: str,
        hint_name: str,
        nodes: list[Node],
        output_shape: Sequence[int] | None,
    ) -> None:
        if not nodes:
            raise InvalidGraph(f"sequential operator {name!r} holds no operators")
        super().__init__("sequential", name, hint_name, nodes[0].inputs, output_shape)
        self.nodes = nodes

    def infer_shape(self) -> None:
        """Set `output_shape` here and on every operator inside."""
        for node in self.nodes:
            node.infer_shape()
        self.output_shape = self.nodes[-1].output_shape

    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(node.macs() for node in self.nodes)

    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(node.parameters() for node in self.nodes)

    def own_flops(self) -> int:
        """Floating-point operations for one image, all operators inside."""
        return sum(node.own_flops() for node in self.nodes)

    def memory_access(self) -> int:
        """Elements read and written for one image, all operators inside."""
        return sum(node.memory_access() for node in self.nodes)

    def kernels(self) -> int:
        """Kernel calls without fusion, all operators inside."""
        return sum(node.kernels() for node in self.nodes)

    def export_config(self) -> dict[str, Any]:
        """Return the operator as plain data for JSON."""
        return {
            "type": self.type,
            "name": self.name,
            "hint_name": self.hint_name,
            "nodes": [node.export_config() for node in self.nodes],
            "output_shape": None if self.output_shape is None else list(self.output_shape),
        }

    def readable_lines(self, indent: int) -> list[str]:
        """Return the operator for people, one string a line."""
        inner = [line for node in self.nodes for line in node.readable_lines(indent)]
        return [f"[{self.hint_name}]sequential(", *(" " * indent + line for line in inner), ")"]


def _windows(image: Pair, node: Conv | Pool) -> Pair:
    sizes = [
        1 + (extent + 2 * padding - kernel) // stride
        for extent, kernel, stride, padding in zip(
            image, node.kernel, node.stride, node.padding, strict=True
        )
    ]
    if min(sizes) < 1:
        raise InvalidOption(
            f"{node.owner}: kernel {node.kernel[0]}×{node.kernel[1]} with padding "
            f"{node.padding[0]}×{node.padding[1]} does not fit its input of "
            f"{image[0]}×{image[1]}; the image is too small for this network"
        )
    return sizes[0], sizes[1]
