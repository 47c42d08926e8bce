"""Work as one CUDA graph.

Capture begins on the origin in thread-local mode; a fork brings every other stream in, a join
brings it back. Whatever fails in between, the streams are joined and the capture is ended, so
that they can be used again. The garbage collector rests meanwhile: a finaliser that frees device
memory or destroys a stream would break the capture.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graph_executor.cuda.driver import CudaFailed, Driver, Graph, Stream
from graph_executor.cuda.steps import Step
from graph_executor.cuda.streams import Streams

__all__ = ["capture_on", "capture_plan"]


def capture_plan(
    driver: Driver,
    streams: Streams,
    fork: Sequence[Step],
    body: Callable[[], None],
    join: Sequence[Step],
) -> Graph:
    """Capture fork, body and join of a plan, and return the instantiated graph.

    Parameters
    ----------
    driver, streams
        What is captured on what.
    fork
        The record on the origin, then one wait for each stream, which brings it in.
    join
        For each stream, in the same order, a record on it and a wait of the origin.
    body
        Issues everything between; may raise.

    Raises
    ------
    CudaFailed
        When CUDA refuses something. The streams can be used again.
    """
    entered = 0

    def issue() -> None:
        nonlocal entered
        fork[0].call()
        for step in fork[1:]:
            step.call()
            entered += 1
        body()
        for step in join:
            step.call()

    return capture_on(
        driver,
        streams.origin,
        issue,
        lambda: _join_all(join[: 2 * entered]),
        lambda: entered > 1,
    )


def capture_on(
    driver: Driver,
    origin: Stream,
    issue: Callable[[], None],
    rescue: Callable[[], None],
    is_concurrent: Callable[[], bool],
) -> Graph:
    """Capture what `issue` issues, and return the instantiated graph.

    Parameters
    ----------
    driver
        CUDA.
    origin
        Where it begins and ends.
    issue
        Issues the work; may raise.
    rescue
        Called when it raised: joins the streams that are still out.
    is_concurrent
        Called after it: whether kernels in the graph may run at once.

    Raises
    ------
    CudaFailed
        When CUDA refuses something. The streams can be used again.
    """
    with _no_collection():
        driver.begin_capture(origin)
        try:
            issue()
        except BaseException:
            try:
                rescue()
            finally:
                driver.abort_capture(origin)
            raise
        return driver.end_capture(origin, is_concurrent())


def _join_all(join: Sequence[Step]) -> None:
    """Bring every stream back that can be brought back: each records its end, then is waited for.

    Where the capture is invalid already the record fails; the event then still is one of an
    earlier run, for which nobody may wait here.
    """
    for record, wait in zip(join[::2], join[1::2], strict=True):
        try:
            record.call()
            wait.call()
        except CudaFailed:
            continue


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
