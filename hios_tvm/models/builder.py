"""The functions with which IOS and HIOS users write their networks.

Names, arguments and meaning are theirs; a model file needs only other import lines::

    v = placeholder(output_shape=(3, 32, 32))
    block = Block(enter_node=v.node)
    a = conv2d(block, inputs=[[v]], out_channels=8, kernel=(3, 3), padding=(1, 1))
    b = conv2d(block, inputs=[[v]], out_channels=8, kernel=(1, 1))
    out = identity(block, inputs=[[a, b], [v]], is_exit=True)   # concat(a + b, v)
    graph = Graph(name="demo", input=v.node, blocks=[block])

`linear` is the only function they do not have. A separable convolution has one bias, at its end:
with nothing in between, a second one at the depthwise half would add nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hios.errors import InvalidGraph
from hios_tvm.models.blocks import Block
from hios_tvm.models.node import Node
from hios_tvm.models.node_options import Pair
from hios_tvm.models.nodes import (
    Activation,
    Conv,
    Element,
    Identity,
    Linear,
    Placeholder,
    Pool,
    Relu,
    Sequential,
)
from hios_tvm.models.values import Inputs, Value, combined_shape

__all__ = [
    "activation",
    "addition",
    "conv2d",
    "element",
    "get_parts",
    "identity",
    "linear",
    "multiply",
    "new_name",
    "placeholder",
    "pool2d",
    "relu",
    "relu_conv",
    "relu_sep_conv",
    "reset_name",
    "rwconv2d",
    "sep_conv",
    "sequential",
    "sigmoid",
    "tanh",
]

_next_name = 0


def new_name() -> str:
    """Return the next name for an operator: "0", "1", …"""
    global _next_name
    name = str(_next_name)
    _next_name += 1
    return name


def reset_name() -> None:
    """Let names start at "0" again; call it before a new network."""
    global _next_name
    _next_name = 0


def placeholder(output_shape: Sequence[int]) -> Value:
    """Return the input of a network.

    Parameters
    ----------
    output_shape : (int, int, int)
        Channels, height, width.
    """
    name = new_name()
    node = Placeholder(name, name, output_shape)
    return Value(node, 0, node.shape[0])


def conv2d(
    block: Block,
    inputs: Inputs,
    out_channels: int,
    kernel: Pair = (1, 1),
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
    act: str = "relu",
    is_exit: bool = False,
) -> Value:
    """Add a convolution with bias and activation.

    Parameters
    ----------
    block : Block
        Where to add it.
    inputs : list of list of Value
        Terms; the values of a term are added, the terms concatenated along the channels.
    out_channels : int
        Number of output channels.
    kernel, stride, padding : (int, int)
        Along height and width.
    groups : int
        A common divisor of the input and output channels.
    act : {"relu", "sigmoid", "tanh", "identity"}
        Activation of the output.
    is_exit : bool
        Whether the block ends here.

    Raises
    ------
    InvalidGraph
        When the shapes of the inputs do not fit each other.
    InvalidOption
        When an option is out of range or the kernel does not fit the image.
    """
    name = new_name()
    node = Conv(name, name, inputs, out_channels, kernel, stride, padding, groups, act, None)
    return _add(block, node, is_exit)


def linear(
    block: Block, inputs: Inputs, out_features: int, act: str = "identity", is_exit: bool = False
) -> Value:
    """Add a fully connected layer over the flattened inputs.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    out_features : int
        Number of outputs; the output shape is (out_features, 1, 1).
    act : {"relu", "sigmoid", "tanh", "identity"}
        Activation of the output.
    """
    name = new_name()
    return _add(block, Linear(name, name, inputs, out_features, act, None), is_exit)


def pool2d(
    block: Block,
    inputs: Inputs,
    pool_type: str,
    kernel: Pair = (1, 1),
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    is_exit: bool = False,
) -> Value:
    """Add a pooling operator.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    pool_type : {"max", "avg", "global_max", "global_avg"}
        The global ones take the whole image and ignore the next three.
    kernel, stride, padding : (int, int)
        Along height and width.
    """
    name = new_name()
    node = Pool(name, name, inputs, pool_type, kernel, stride, padding, None)
    return _add(block, node, is_exit)


def identity(block: Block, inputs: Inputs, is_exit: bool = False) -> Value:
    """Add the combined inputs as an operator: a bare addition or concatenation.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    """
    name = new_name()
    return _add(block, Identity(name, name, inputs, None), is_exit)


def relu(block: Block, inputs: Inputs, is_exit: bool = False) -> Value:
    """Add a rectifier.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    """
    name = new_name()
    return _add(block, Relu(name, name, inputs, None), is_exit)


def activation(
    block: Block, inputs: Inputs, act_type: str, inplace: bool = False, is_exit: bool = False
) -> Value:
    """Add an element-wise non-linearity.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    act_type : {"relu", "tanh", "sigmoid"}
        The function.
    inplace : bool
        Accepted for model files that pass it; memory is planned by the executor.
    """
    name = new_name()
    return _add(block, Activation(name, name, inputs, act_type, inplace, None), is_exit)


def sigmoid(block: Block, inputs: Inputs, inplace: bool = False, is_exit: bool = False) -> Value:
    """Add a logistic function; `activation` with ``act_type="sigmoid"``."""
    return activation(block, inputs, "sigmoid", inplace, is_exit)


def tanh(block: Block, inputs: Inputs, inplace: bool = False, is_exit: bool = False) -> Value:
    """Add a hyperbolic tangent; `activation` with ``act_type="tanh"``."""
    return activation(block, inputs, "tanh", inplace, is_exit)


def element(block: Block, inputs: Inputs, op_type: str, is_exit: bool = False) -> Value:
    """Add an element-wise sum or product of the values of each term.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    op_type : {"add", "mul"}
        What is done with the values of a term.
    """
    name = new_name()
    return _add(block, Element(name, name, inputs, op_type, None), is_exit)


def addition(block: Block, inputs: Inputs, is_exit: bool = False) -> Value:
    """Add an element-wise sum; `element` with ``op_type="add"``."""
    return element(block, inputs, "add", is_exit)


def multiply(block: Block, inputs: Inputs, is_exit: bool = False) -> Value:
    """Add an element-wise product; `element` with ``op_type="mul"``."""
    return element(block, inputs, "mul", is_exit)


def sequential(
    block: Block, hint_name: str | None, nodes: list[Node], is_exit: bool = False
) -> Value:
    """Add operators in a row as one unit for the scheduler.

    Parameters
    ----------
    block, is_exit
        As for `conv2d`.
    hint_name : str or None
        For people; the name of the unit if None.
    nodes : list of Node
        The operators in order. The first holds the inputs, each further one reads the one
        before it.
    """
    name = new_name()
    for before, after in pairwise(nodes):
        before.infer_shape()
        after.inputs = [[Value(before, 0, before.shape[0])]]
    return _add(block, Sequential(name, hint_name or name, nodes, None), is_exit)


def sep_conv(
    block: Block,
    inputs: Inputs,
    out_channels: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    is_exit: bool = False,
) -> Value:
    """Add a depthwise and a pointwise convolution as one unit, without activation.

    Parameters
    ----------
    block, inputs, is_exit
        As for `conv2d`.
    out_channels : int
        Of the pointwise convolution.
    kernel, stride, padding : (int, int)
        Of the depthwise convolution.
    """
    nodes = _separable(inputs, None, out_channels, kernel, stride, padding)
    return sequential(block, "SepConv", nodes, is_exit)


def relu_sep_conv(
    block: Block,
    inputs: Inputs,
    out_channels: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    is_exit: bool = False,
) -> Value:
    """Add a rectifier, a depthwise and a pointwise convolution as one unit.

    Parameters
    ----------
    block, inputs, out_channels, kernel, stride, padding, is_exit
        As for `sep_conv`.
    """
    name = new_name()
    first = Relu(name, name, inputs, None)
    nodes = _separable(inputs, first, out_channels, kernel, stride, padding)
    return sequential(block, "ReluSepConv", nodes, is_exit)


def relu_conv(
    block: Block,
    inputs: Inputs,
    out_channels: int,
    kernel: Pair = (1, 1),
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
    is_exit: bool = False,
) -> Value:
    """Add a rectifier and a convolution without activation as one unit.

    Parameters
    ----------
    block, inputs, out_channels, kernel, stride, padding, groups, is_exit
        As for `conv2d`.
    """
    first, second = new_name(), new_name()
    nodes: list[Node] = [
        Relu(first, first, inputs, None),
        Conv(second, second, None, out_channels, kernel, stride, padding, groups, "identity", None),
    ]
    return sequential(block, "ReluConv", nodes, is_exit)


def rwconv2d(
    block: Block,
    inputs: Inputs,
    out_channels: int,
    stride: Pair = (1, 1),
    is_exit: bool = False,
) -> Value:
    """Add the node of a randomly wired network: rectifier and 3×3 separable convolution.

    Parameters
    ----------
    block, inputs, out_channels, stride, is_exit
        As for `sep_conv`; the padding is 1×1.
    """
    return relu_sep_conv(block, inputs, out_channels, (3, 3), stride, (1, 1), is_exit)


def get_parts(block: Block, split_vars: Sequence[Value]) -> list[list[Node]]:
    """Divide a block whose operators are too many for one search.

    Parameters
    ----------
    block : Block
        A complete block.
    split_vars : sequence of Value
        The value that enters the block, then the last value of each part, the exit at the end.

    Returns
    -------
    list of list of Node
        Part i holds what was added after ``split_vars[i]`` up to ``split_vars[i + 1]``.

    Raises
    ------
    InvalidGraph
        When the values are no operators of the block in order, or leave some operator out.
    """
    nodes = block.nodes()
    position = {node.name: index for index, node in enumerate(nodes)}
    position[block.enter_node.name] = -1
    ends: list[int] = []
    for value in split_vars:
        if value.node.name not in position:
            raise InvalidGraph(f"{value.node.owner} splits a block that it is no part of")
        ends.append(position[value.node.name])
    if not ends or ends[0] != -1 or ends[-1] != len(nodes) - 1 or ends != sorted(set(ends)):
        raise InvalidGraph(
            f"split_vars are at positions {ends} of a block of {len(nodes)} operators; they must "
            f"rise from -1 (what enters) to {len(nodes) - 1} (the exit)"
        )
    return [nodes[a + 1 : b + 1] for a, b in pairwise(ends)]


def _add(block: Block, node: Node, is_exit: bool) -> Value:
    node.infer_shape()
    if is_exit:
        if block.exit_node is not None:
            raise InvalidGraph(
                f"{node.owner} ends a block that {block.exit_node.owner} ends already"
            )
        block.exit_node = node
    else:
        block.inner_nodes.append(node)
    node.register_uses()
    return Value(node, 0, node.shape[0])


def _separable(
    inputs: Inputs,
    first: Node | None,
    out_channels: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
) -> list[Node]:
    depth, point = new_name(), new_name()
    channels = combined_shape(inputs, f"separable convolution {depth!r}")[0]
    depthwise = Conv(
        depth,
        depth,
        inputs if first is None else None,
        channels,
        kernel,
        stride,
        padding,
        channels,
        "identity",
        None,
        bias=False,
    )
    pointwise = Conv(point, point, None, out_channels, (1, 1), (1, 1), (0, 0), 1, "identity", None)
    return [depthwise, pointwise] if first is None else [first, depthwise, pointwise]
