"""The whole plan as one CUDA graph.

Capture begins on the origin in thread-local mode; the fork brings every other stream in, the join
brings it back. Whatever fails in between, all streams are joined and the capture is ended, so
that they can be used again. The garbage collector rests meanwhile: a finaliser that frees device
memory or destroys a stream would break the capture.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graph_executor.cuda.driver import CudaFailed, Driver, Graph
from graph_executor.cuda.steps import Step
from graph_executor.cuda.streams import Streams

__all__ = ["capture"]


def capture(
    driver: Driver,
    streams: Streams,
    fork: Sequence[Step],
    body: Callable[[], None],
    join: Sequence[Step],
) -> Graph:
    """Capture fork, body and join, and return the instantiated graph.

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
    with _no_collection():
        driver.begin_capture(streams.origin)
        entered = 0
        try:
            fork[0].call()
            for step in fork[1:]:
                step.call()
                entered += 1
            body()
            for step in join:
                step.call()
        except BaseException:
            try:
                _join_all(join[: 2 * entered])
            finally:
                driver.abort_capture(streams.origin)
            raise
        return driver.end_capture(streams.origin)


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
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
