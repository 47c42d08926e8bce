"""One division of the first-level cache for all kernels of a graph that run at once.

A multiprocessor's memory is divided between shared memory and first-level cache, and divided anew
only while nothing runs on it. A kernel without shared memory prefers all of it as cache; one
with shared memory that starts beside it then finds room for few of its blocks, and two kernels
at once take up to four times as long as one after the other (pooling beside a convolution on an
H200, docs/gpu-measurements.md). So all kernels of such a graph ask for the most shared memory. It
is a hint of each launch, held by the node of the graph: other work in the process is not touched.
"""

from contextlib import suppress
from typing import Any

from cuda.bindings import driver

from graph_executor.cuda.check import check
from graph_executor.cuda.driver import CudaFailed

__all__ = ["ask_for_shared_memory"]

_KERNEL = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL
_CARVEOUT = driver.CUkernelNodeAttrID.CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
_MOST_PERCENT = 100


def ask_for_shared_memory(device: int, graph: Any) -> None:
    """Let all kernels of a graph prefer the most shared memory.

    Parameters
    ----------
    device
        Ordinal, for messages.
    graph
        Captured and not instantiated yet.

    Raises
    ------
    CudaFailed
        When the graph cannot be read. A driver that does not know the hint goes without.
    """
    own = driver.CUgraph(int(graph))
    _, count = check(device, driver.cuGraphGetNodes, own)
    nodes, _ = check(device, driver.cuGraphGetNodes, own, count)
    value = driver.CUkernelNodeAttrValue()
    value.sharedMemCarveout = _MOST_PERCENT
    for node in nodes[:count]:
        if check(device, driver.cuGraphNodeGetType, node) == _KERNEL:
            with suppress(CudaFailed):
                check(device, driver.cuGraphKernelNodeSetAttribute, node, _CARVEOUT, value)
