"""What tells one kernel from all others, whatever model or layer it stands in."""

from hios.ir.graph import OpGraph
from hios.ir.ids import OpId

__all__ = ["operator_key"]


def operator_key(graph: OpGraph, op: OpId) -> str | None:
    """Return what tells the kernel of `op` from all others; None where nothing does.

    The kernel's structural hash (``attrs["key"]``) with shapes and dtypes of its tensors.
    """
    operator = graph.operators[op]
    if "key" not in operator.attrs:
        return None
    tensors = [graph.tensors[t] for t in (*operator.inputs, *operator.outputs)]
    shapes = ",".join(f"{'x'.join(map(str, t.shape))}:{t.dtype}" for t in tensors)
    return f"{operator.attrs['key']}|{len(operator.inputs)}|{shapes}"
