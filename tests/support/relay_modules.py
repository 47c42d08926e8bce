"""Small Relay modules, one for each thing that a graph may hold."""

import numpy as np
import tvm
from tvm import relay


def weight(*shape, seed=0):
    return relay.const(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def module(inputs, output):
    return relay.transform.InferType()(tvm.IRModule.from_expr(relay.Function(inputs, output)))


def views_and_tuples():
    """Views, a kernel with two outputs, a tuple of outputs with a view and an input among them."""
    x = relay.var("x", shape=(1, 64), dtype="float32")
    dense = relay.nn.relu(relay.nn.dense(x, weight(64, 64)))
    square = relay.reshape(dense, (8, 8))
    halves = relay.split(square, 2, axis=0)
    top = relay.nn.softmax(halves[0])
    bottom = relay.nn.dense(relay.reshape(halves[1], (1, 32)), weight(16, 32, seed=1))
    return module([x], relay.Tuple([top, bottom, square, x]))


def inception_block(channels=32, size=28):
    """Four branches that meet in a concatenation."""
    x = relay.var("x", shape=(1, channels, size, size), dtype="float32")

    def conv(data, kernel, seed, inputs=channels):
        w = weight(channels, inputs, kernel, kernel, seed=seed)
        padding = (kernel // 2, kernel // 2)
        return relay.nn.relu(
            relay.nn.conv2d(
                data, w, channels=channels, kernel_size=(kernel, kernel), padding=padding
            )
        )

    branches = [
        conv(x, 1, 0),
        conv(conv(x, 1, 1), 3, 2),
        conv(conv(x, 1, 3), 5, 4),
        conv(relay.nn.max_pool2d(x, (3, 3), (1, 1), padding=(1, 1)), 1, 5),
    ]
    return module([x], relay.concatenate(branches, axis=1))


def chain_with_shared_storage():
    """Six operators in a row that cannot fuse: TVM's plan gives them two buffers in turns."""
    x = relay.var("x", shape=(4, 32), dtype="float32")
    value = x
    for step in range(3):
        value = relay.nn.dense(value, weight(32, 32, seed=step))
        value = relay.nn.softmax(value)
    return module([x], value)


def with_free_weights():
    """Weights that are inputs of the graph."""
    x = relay.var("x", shape=(2, 8), dtype="float32")
    w = relay.var("w", shape=(4, 8), dtype="float32")
    return module([x, w], relay.nn.relu(relay.nn.dense(x, w)))
