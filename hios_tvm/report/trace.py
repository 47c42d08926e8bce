"""A timeline as trace events that Perfetto and Chrome open (``ui.perfetto.dev``).

Each device of each timeline is a process (``predicted · cuda:0``), each stream a thread, and
copies have a thread of their own in the process of their destination. Flow arrows lead from
the producer of a tensor to its copy and on to every reader there. The format is the JSON of the
*Trace Event Format*, times in microseconds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hios.ir.graph import Operator, OpGraph
from hios.ir.ids import OpId, TensorId
from hios.ir.machine import Machine
from hios.ir.serial import encode_json, write_bytes
from hios.ir.timeline import Timeline, TimelineEvent
from hios_tvm.report.palette import colour_of

__all__ = ["trace_events", "write_trace"]

# Thread ids of copies, beyond any stream: one per source device.
_COPY_THREAD = 1000


def write_trace(
    graph: OpGraph, machine: Machine, timelines: Sequence[Timeline], path: str | Path
) -> None:
    """Write timelines of one schedule as one trace file.

    Parameters
    ----------
    graph, machine
        What the timelines ran, and where.
    timelines
        Any number; each becomes its own processes.
    path
        The JSON file.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    events: list[dict[str, Any]] = []
    for index, timeline in enumerate(timelines):
        events += trace_events(graph, machine, timeline, first_pid=index * len(machine.devices))
    document = {
        "displayTimeUnit": "ms",
        "otherData": {"graph": graph.name, "machine": machine.name},
        "traceEvents": events,
    }
    write_bytes(path, encode_json(document))


def trace_events(
    graph: OpGraph, machine: Machine, timeline: Timeline, first_pid: int = 0
) -> list[dict[str, Any]]:
    """Return the trace events of one timeline.

    Parameters
    ----------
    graph, machine, timeline
        What ran, where, and when.
    first_pid
        Process id of the first device; the others follow.

    Returns
    -------
    list of dict
        Names of processes and threads first (phase ``M``), then slices (``X``) and flows
        (``s``, ``t``, ``f``).
    """
    operators = [event for event in timeline.events if event.kind == "operator"]
    copies = [e for e in timeline.events if e.kind == "transfer" and e.dst is not None]
    events = list(_names(machine, timeline, operators, copies, first_pid))
    events += [_operator_slice(graph.operators[OpId(e.subject)], e, first_pid) for e in operators]
    events += [_copy_slice(graph, machine, e, first_pid) for e in copies]
    events += _flows(graph, operators, copies, first_pid)
    return events


def _names(
    machine: Machine,
    timeline: Timeline,
    operators: Iterable[TimelineEvent],
    copies: Iterable[TimelineEvent],
    first_pid: int,
) -> Iterable[dict[str, Any]]:
    threads: dict[tuple[int, int], str] = {}
    for event in operators:
        stream = event.stream or 0
        threads[event.device, stream] = f"stream {stream}"
    for event in copies:
        thread = _copy_place(event)
        source = machine.devices[event.device].name
        threads.setdefault(thread, f"copies from {source}")
    for device, described in enumerate(machine.devices):
        pid = first_pid + device
        label = f"{timeline.origin} · {described.name}"
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": label}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}
    for (device, tid), label in sorted(threads.items()):
        where = {"pid": first_pid + device, "tid": tid}
        yield {"ph": "M", "name": "thread_name", **where, "args": {"name": label}}
        yield {"ph": "M", "name": "thread_sort_index", **where, "args": {"sort_index": tid}}


def _copy_place(event: TimelineEvent) -> tuple[int, int]:
    """Return device and thread of a copy: the stream it keeps busy, or its link's thread."""
    destination = event.device if event.dst is None else event.dst
    return destination, _COPY_THREAD + event.device if event.stream is None else event.stream


def _operator_slice(operator: Operator, event: TimelineEvent, first_pid: int) -> dict[str, Any]:
    details: dict[str, Any] = {"operator": operator.id, "kind": operator.kind}
    if operator.kernel:
        details["kernel"] = operator.kernel
    if event.stage is not None:
        details["stage"] = event.stage
    duration = event.end_us - event.start_us
    if operator.flops and duration > 0:
        details["GFLOP/s"] = round(operator.flops / duration / 1e3, 2)
    if operator.bytes_read or operator.bytes_written:
        details["bytes"] = operator.bytes_read + operator.bytes_written
    return {
        "ph": "X",
        "name": operator.name,
        "cat": operator.kind or "operator",
        "pid": first_pid + event.device,
        "tid": event.stream or 0,
        "ts": event.start_us,
        "dur": duration,
        "args": details | {"colour": colour_of(operator.kind)},
    }


def _copy_slice(
    graph: OpGraph, machine: Machine, event: TimelineEvent, first_pid: int
) -> dict[str, Any]:
    tensor = graph.tensors[TensorId(event.subject)]
    device, tid = _copy_place(event)
    duration = event.end_us - event.start_us
    details: dict[str, Any] = {
        "tensor": tensor.id,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "bytes": tensor.bytes,
        "from": machine.devices[event.device].name,
        "to": machine.devices[device].name,
    }
    if tensor.bytes and duration > 0:
        details["GB/s"] = round(tensor.bytes / duration / 1e3, 2)
    return {
        "ph": "X",
        "name": f"copy {tensor.name}",
        "cat": "copy",
        "pid": first_pid + device,
        "tid": tid,
        "ts": event.start_us,
        "dur": duration,
        "args": details,
    }


def _flows(
    graph: OpGraph,
    operators: Iterable[TimelineEvent],
    copies: Iterable[TimelineEvent],
    first_pid: int,
) -> Iterable[dict[str, Any]]:
    producers = {event.subject: event for event in operators}
    readers: dict[tuple[int, int], list[TimelineEvent]] = defaultdict(list)
    for event in operators:
        used = {graph.root(t) for t in graph.operators[OpId(event.subject)].inputs}
        for tensor in sorted(used):
            readers[tensor, event.device].append(event)
    # A flow binds to the slice that encloses its time: halfway is inside whatever the length.
    for number, copy in enumerate(copies):
        device, tid = _copy_place(copy)
        flow = {"name": "tensor", "cat": "copy", "id": first_pid * 1_000_000 + number}
        producer = graph.producer(TensorId(copy.subject))
        source = producers.get(-1 if producer is None else producer)
        middle = (copy.start_us + copy.end_us) / 2
        first = source is None
        if source is not None:
            yield {
                **flow,
                "ph": "s",
                "pid": first_pid + source.device,
                "tid": source.stream or 0,
                "ts": (source.start_us + source.end_us) / 2,
            }
        targets = readers.get((copy.subject, device), [])
        phase = "s" if first else "t" if targets else "f"
        yield {**flow, "ph": phase, "bp": "e", "pid": first_pid + device, "tid": tid, "ts": middle}
        for index, reader in enumerate(targets):
            yield {
                **flow,
                "ph": "f" if index == len(targets) - 1 else "t",
                "bp": "e",
                "pid": first_pid + reader.device,
                "tid": reader.stream or 0,
                "ts": (reader.start_us + reader.end_us) / 2,
            }
