"""Rewrites of an ONNX graph ahead of TVM's importer, for forms that it does not take."""

from __future__ import annotations

from typing import Any

__all__ = ["rewrite_for_import"]


def rewrite_for_import(model: Any) -> Any:
    """Return `model`, or a rewritten copy of it where a rewrite is needed.

    ``LayerNormalization`` whose mean or inverse deviation is used as well gets them from
    elementary operators: the importer returns zeros for these two outputs.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    """
    import onnx

    if not any(_needs_statistics(n) for n in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    ranks = {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in (*copy.graph.input, *copy.graph.value_info, *copy.graph.output)
        if v.type.HasField("tensor_type") and v.type.tensor_type.HasField("shape")
    }
    opset = max((o.version for o in copy.opset_import if o.domain in ("", "ai.onnx")), default=17)
    nodes = []
    for node in copy.graph.node:
        if _needs_statistics(node) and node.input[0] in ranks:
            nodes.extend(_with_statistics(node, ranks[node.input[0]], opset, copy.graph))
        else:
            nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _needs_statistics(node: Any) -> bool:
    return node.op_type == "LayerNormalization" and any(bool(o) for o in node.output[1:])


def _with_statistics(node: Any, rank: int, opset: int, graph: Any) -> list[Any]:
    import numpy as np
    from onnx import helper, numpy_helper

    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis = int(attrs.get("axis", -1)) % rank
    axes = list(range(axis, rank))
    source, stem = node.input[0], f"{node.output[0]}_statistics"
    epsilon = f"{stem}_epsilon"
    value = np.asarray(attrs.get("epsilon", 1e-5), dtype=np.float32)
    graph.initializer.append(numpy_helper.from_array(value, epsilon))
    mean = node.output[1] or f"{stem}_mean"
    inverse = node.output[2] if len(node.output) > 2 and node.output[2] else f"{stem}_inverse"

    def reduce(data: str, out: str) -> Any:
        if opset < 18:
            return helper.make_node("ReduceMean", [data], [out], axes=axes, keepdims=1)
        name = f"{out}_axes"
        graph.initializer.append(numpy_helper.from_array(np.asarray(axes, dtype=np.int64), name))
        return helper.make_node("ReduceMean", [data, name], [out], keepdims=1)

    plain = type(node)()
    plain.CopyFrom(node)
    del plain.output[1:]
    return [
        plain,
        reduce(source, mean),
        helper.make_node("Sub", [source, mean], [f"{stem}_centred"]),
        helper.make_node("Mul", [f"{stem}_centred", f"{stem}_centred"], [f"{stem}_squared"]),
        reduce(f"{stem}_squared", f"{stem}_variance"),
        helper.make_node("Add", [f"{stem}_variance", epsilon], [f"{stem}_shifted"]),
        helper.make_node("Sqrt", [f"{stem}_shifted"], [f"{stem}_deviation"]),
        helper.make_node("Reciprocal", [f"{stem}_deviation"], [inverse]),
    ]
