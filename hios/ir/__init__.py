"""Core types: operator graph, machine, schedule, timeline, compiled graph."""

from hios.ir.graph import Alternative, Operator, OpGraph, Tensor
from hios.ir.ids import DeviceId, OpId, StageId, StreamId, TensorId
from hios.ir.kernels import CompiledGraph, KernelLibrary
from hios.ir.machine import Device, Link, Machine
from hios.ir.schedule import Copy, LinkOrder, Placement, Schedule, required_copies
from hios.ir.timeline import Timeline, TimelineEvent

__all__ = [
    "Alternative",
    "CompiledGraph",
    "Copy",
    "Device",
    "DeviceId",
    "KernelLibrary",
    "Link",
    "LinkOrder",
    "Machine",
    "OpGraph",
    "OpId",
    "Operator",
    "Placement",
    "Schedule",
    "StageId",
    "StreamId",
    "Tensor",
    "TensorId",
    "Timeline",
    "TimelineEvent",
    "required_copies",
]
