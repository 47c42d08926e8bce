"""Uses of ONNX operators that TVM's importer would translate wrongly without saying so.

Each entry was found by running ONNX's own node tests. A model that holds one is refused: a clear
line is better than a wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hios.errors import UnsupportedModel

__all__ = ["refuse_mistranslated"]


def refuse_mistranslated(model: Any) -> None:
    """Raise on the first node that the importer is known to get wrong.

    Parameters
    ----------
    model : onnx.ModelProto
        The model to be imported.

    Raises
    ------
    UnsupportedModel
        Naming the operator and what about it is not supported.
    """
    from onnx import helper, numpy_helper

    constants = {i.name: i for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    consumed = {name for node in model.graph.node for name in node.input}
    consumed |= {output.name for output in model.graph.output}
    for node in model.graph.node:
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        reason = _reason(
            node,
            attrs,
            [name in consumed for name in node.output],
            lambda name: numpy_helper.to_array(constants[name]) if name in constants else None,
        )
        if reason is not None:
            label = node.name or (node.output[0] if node.output else "?")
            raise UnsupportedModel(f"ONNX operator {node.op_type} ({label!r}): {reason}")


def _reason(node: Any, attrs: Mapping[str, Any], used: Sequence[bool], constant: Any) -> str | None:
    kind = node.op_type
    if kind in ("If", "Loop", "Scan"):
        return "control flow is not supported; export the model with the branch or loop unrolled"
    if kind == "BatchNormalization" and attrs.get("training_mode", 0):
        return "training mode is not supported; export the model for inference"
    if kind == "Dropout" and len(node.input) > 2 and node.input[2]:
        mode = constant(node.input[2])
        if mode is None or bool(np.asarray(mode).any()):
            return "training mode is not supported; export the model for inference"
    if kind == "Dropout" and len(used) > 1 and used[1]:
        return "the second output (mask) is not supported"
    if kind == "SpaceToDepth" and attrs.get("mode", b"DCR") != b"DCR":
        return f"mode {attrs['mode'].decode()} is not supported; use DCR"
    if kind == "IsInf" and not (
        attrs.get("detect_negative", 1) and attrs.get("detect_positive", 1)
    ):
        return "telling the signs of infinities apart is not supported"
    if kind == "ConvTranspose" and ("output_shape" in attrs):
        return "attribute output_shape is not supported; give pads instead"
    if kind == "Resize":
        return _resize_reason(node, attrs, constant)
    if kind == "MaxPool" and len(used) > 1 and used[1]:
        return "the second output (indices) is not supported"
    return None


def _resize_reason(node: Any, attrs: Mapping[str, Any], constant: Any) -> str | None:
    if attrs.get("antialias", 0):
        return "antialias is not supported"
    if attrs.get("exclude_outside", 0):
        return "exclude_outside is not supported"
    mode = attrs.get("mode", b"nearest")
    if mode == b"nearest" or len(node.input) < 3 or not node.input[2]:
        return None
    scales = constant(node.input[2])
    if scales is not None and scales.size and np.any(np.asarray(scales) < 1.0):
        # The importer samples by the ratio of the sizes, ONNX by the given scale; they differ
        # wherever scale times size is not a whole number, which downsampling makes likely.
        return f"mode {mode.decode()} with scales below 1 is not supported; give sizes instead"
    return None
