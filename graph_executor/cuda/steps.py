"""From a plan to the calls that issue it: fork, the lists in issue order, join.

The same calls run eagerly or are captured. *Fork*: the origin records an event and every stream
waits for it, which orders a run after the one before it and makes every stream part of a capture.
*Join*: every stream records its end and the origin waits for it. Between them stand the plan's
own instructions, one call each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graph_executor.cuda.driver import Driver, Stream
from graph_executor.cuda.issue import issue_order
from graph_executor.cuda.memory import Arenas
from graph_executor.cuda.streams import Streams
from graph_executor.plan import Copy, Launch, Plan, Record, StreamQueue, Wait
from hios.ir.graph import OpGraph

__all__ = ["Step", "bind_body", "bind_fork", "bind_join"]


@dataclass(frozen=True, slots=True)
class Step:
    """One call.

    Attributes
    ----------
    call
        What to call.
    queue, position
        The instruction that it performs; None for a fork or join.
    stream
        Where it is issued to.
    is_action
        Whether it is a launch or a copy.
    """

    call: Callable[[], Any]
    stream: Stream
    queue: int | None = None
    position: int | None = None
    is_action: bool = False


def bind_fork(driver: Driver, streams: Streams) -> list[Step]:
    """Return the calls that start a run."""
    origin = streams.origin
    steps = [Step(partial(driver.record, streams.begin, origin), origin)]
    for stream in streams.queues:
        steps.append(Step(partial(driver.wait, stream, streams.begin), stream))
    return steps


def bind_join(driver: Driver, streams: Streams) -> list[Step]:
    """Return the calls that end a run: the origin waits for every list."""
    steps = []
    for stream, done in zip(streams.queues, streams.done, strict=True):
        steps.append(Step(partial(driver.record, done, stream), stream))
        steps.append(Step(partial(driver.wait, streams.origin, done), streams.origin))
    return steps


def bind_body(
    driver: Driver, plan: Plan, graph: OpGraph, module: Any, arenas: Arenas, streams: Streams
) -> list[Step]:
    """Return the calls of all lists, in issue order.

    Raises
    ------
    ArtifactMismatch
        When the library lacks a kernel.
    """
    kernels: dict[str, Callable[..., Any]] = {}
    current: dict[int, Stream] = {}
    steps: list[Step] = []
    for number, position in issue_order(plan):
        queue = plan.queues[number]
        stream = streams.queues[number]
        call: Callable[[], Any]
        is_action = False
        match queue.instructions[position]:
            case Launch(op=op):
                assert isinstance(queue, StreamQueue)  # the race detector proved it
                # Kernels go to the one stream that this thread has on the device.
                if current.get(stream.device) is not stream:
                    current[stream.device] = stream
                    steps.append(Step(partial(driver.use, stream), stream, number, position))
                operator = graph.operators[op]
                if operator.kernel not in kernels:
                    kernels[operator.kernel] = driver.find_kernel(module, operator.kernel)
                tensors: Sequence[Any] = [
                    arenas.tensor(queue.device, tensor)
                    for tensor in (*operator.inputs, *operator.outputs)
                ]
                kernel = kernels[operator.kernel]
                call = partial(driver.launch, stream.device, kernel, tensors)
                is_action = True
            case Copy(tensor=tensor, src=src, dst=dst):
                target, source = arenas.region(dst, tensor), arenas.region(src, tensor)
                call = partial(driver.copy, target, source, stream)
                is_action = True
            case Record(event=event):
                call = partial(driver.record, streams.events[event], stream)
            case Wait(event=event):
                call = partial(driver.wait, stream, streams.events[event])
        steps.append(Step(call, stream, number, position, is_action))
    return steps
