"""Operators from their exported configuration, the JSON form that IOS and HIOS write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hios.errors import InvalidGraph
from hios_tvm.models.node import Node
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
from hios_tvm.models.values import Inputs, Value

__all__ = ["rebuild_node"]


def rebuild_node(config: Mapping[str, Any], name2node: dict[str, Node]) -> Node:
    """Rebuild an operator; `name2node` holds those it reads, which learn of it.

    Raises
    ------
    InvalidGraph
        When the type is unknown, a field is missing or an input is not defined before.
    """
    node = _build(config, name2node)
    if not isinstance(node, Placeholder):
        node.register_uses()
    return node


def _build(config: Mapping[str, Any], name2node: dict[str, Node]) -> Node:
    kind = config.get("type")
    if kind not in _REBUILD:
        raise InvalidGraph(
            f"unknown operator type {kind!r}; known are {', '.join(sorted(_REBUILD))}"
        )
    try:
        return _REBUILD[kind](config, name2node)
    except KeyError as missing:
        raise InvalidGraph(
            f"{kind} operator {config.get('name')!r} has no field {missing.args[0]!r}"
        ) from None


def _inputs(config: Mapping[str, Any], name2node: dict[str, Node]) -> Inputs | None:
    if config["inputs"] is None:
        return None
    return [[Value.from_config(value, name2node) for value in term] for term in config["inputs"]]


def _rebuild_placeholder(config: Mapping[str, Any], _: dict[str, Node]) -> Node:
    return Placeholder(config["name"], config["hint_name"], config["output_shape"])


def _rebuild_conv(config: Mapping[str, Any], name2node: dict[str, Node]) -> Node:
    return Conv(
        config["name"],
        config["hint_name"],
        _inputs(config, name2node),
        out_channels=config["out_channels"],
        kernel=config["kernel"],
        stride=config["stride"],
        padding=config["padding"],
        groups=config["groups"],
        act=config["act"],
        output_shape=config["output_shape"],
        bias=config.get("has_bias", True),
    )


def _rebuild_sequential(config: Mapping[str, Any], name2node: dict[str, Node]) -> Node:
    nodes: list[Node] = []
    for inner in config["nodes"]:
        # Unlike Node.from_config this does not register uses: the Sequential itself does.
        node = _build(inner, name2node)
        name2node[node.name] = node
        nodes.append(node)
    return Sequential(config["name"], config["hint_name"], nodes, config["output_shape"])


def _rebuild_plain(
    build: Callable[..., Node], *fields: str
) -> Callable[[Mapping[str, Any], dict[str, Node]], Node]:
    def rebuild(config: Mapping[str, Any], name2node: dict[str, Node]) -> Node:
        return build(
            config["name"],
            config["hint_name"],
            _inputs(config, name2node),
            *(config[field] for field in (*fields, "output_shape")),
        )

    return rebuild


_REBUILD: dict[str, Callable[[Mapping[str, Any], dict[str, Node]], Node]] = {
    "placeholder": _rebuild_placeholder,
    "conv": _rebuild_conv,
    "sequential": _rebuild_sequential,
    "linear": _rebuild_plain(Linear, "out_features", "act"),
    "pool": _rebuild_plain(Pool, "pool_type", "kernel", "stride", "padding"),
    "element": _rebuild_plain(Element, "op_type"),
    "identity": _rebuild_plain(Identity),
    "activation": _rebuild_plain(Activation, "act_type", "inplace"),
    "relu": _rebuild_plain(Relu),
}
