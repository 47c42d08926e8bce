"""Times captured pieces of work with events.

A piece is captured as one graph that holds it several times in a row, and replayed
between two timed events: the launch of the graph is paid once for all repetitions. With a cold
cache it is held once, behind a fill of a buffer larger than the L2 cache that is not timed, and
the time of an empty graph is taken off.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from graph_executor.cuda.capture import capture_on
from graph_executor.cuda.driver import CudaFailed, Driver, Event, Graph, Memory, Stream

__all__ = ["Piece", "Stopwatch"]

Issue = Callable[[], None]

_LONG_US = 150.0
"""A replay of so long is told by its work: launching it takes some 3 µs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A captured piece; it holds the work `repeats` times."""

    graph: Graph
    repeats: int


class Stopwatch:
    """Captures and times work that starts and ends on one stream.

    Parameters
    ----------
    driver, device
        CUDA, and the ordinal of the device.
    streams
        How many side streams pieces may use.
    repeats
        How often a piece is held in its graph at most; with a cold cache once.
    is_cold
        Empty the L2 cache before every replay.
    """

    def __init__(
        self,
        driver: Driver,
        device: int,
        streams: int = 0,
        repeats: int = 10,
        is_cold: bool = False,
    ) -> None:
        self._driver = driver
        self._device = device
        self._repeats = 1 if is_cold else repeats
        self._made: list[Stream | Event | Memory | Graph] = []
        self._flush: Memory | None = None
        self._empty: Piece | None = None
        self._is_forked = self._has_forked = False
        try:
            self.origin = self._stream()
            self.sides = [self._stream() for _ in range(streams)]
            self._fork = self._event(False)
            self._done = [self._event(False) for _ in range(streams)]
            self._start, self._end = self._event(True), self._event(True)
            if is_cold:
                size = 2 * max(1 << 20, driver.facts(device).l2_bytes)
                self._flush = driver.allocate(device, size)
                self._made.append(self._flush)
                self._empty = self.capture(lambda: None)
        except BaseException:
            self.close()
            raise

    def capture(self, issue: Issue, repeats: int | None = None) -> Piece:
        """Capture a piece; `issue` issues it once, from the origin and back to it.

        Parameters
        ----------
        issue
            Issues the work.
        repeats
            How often it is held; None: as often as the stopwatch says.

        Raises
        ------
        CudaFailed
            When CUDA refuses something.
        """
        count = self._repeats if repeats is None else repeats

        def body() -> None:
            for _ in range(count):
                issue()

        self._is_forked = self._has_forked = False
        graph = capture_on(
            self._driver,
            self.origin,
            body,
            self._rescue,
            lambda: self._has_forked and len(self.sides) > 1,
        )
        self._made.append(graph)
        return Piece(graph, count)

    def capture_long(self, issue: Issue) -> Piece:
        """Capture a piece as often as makes its replay outlast its launch.

        Raises
        ------
        CudaFailed
            When CUDA refuses something.
        """
        if self._repeats == 1:
            return self.capture(issue)
        once = self.capture(issue, 1)
        time_us = min(self.time_us(once) for _ in range(3))
        self.forget(once)
        repeats = math.ceil(_LONG_US / time_us) if time_us > 0 else self._repeats
        return self.capture(issue, max(1, min(repeats, self._repeats)))

    def fork(self) -> None:
        """Let the side streams wait for the origin."""
        self._driver.record(self._fork, self.origin)
        self._is_forked = self._has_forked = True
        for side in self.sides:
            self._driver.wait(side, self._fork)

    def join(self) -> None:
        """Let the origin wait for the side streams."""
        self._is_forked = False
        for side, done in zip(self.sides, self._done, strict=True):
            self._driver.record(done, side)
            self._driver.wait(self.origin, done)

    def _rescue(self) -> None:
        """Bring side streams back into a capture that failed."""
        if not self._is_forked:
            return
        for side, done in zip(self.sides, self._done, strict=True):
            try:
                self._driver.record(done, side)
                self._driver.wait(self.origin, done)
            except CudaFailed:
                continue

    def time_us(self, piece: Piece) -> float:
        """Replay a piece and return its time, for one repetition."""
        whole = self._replay(piece)
        if self._empty is not None:
            whole -= self._replay(self._empty)
        return max(0.0, whole) / piece.repeats

    def _replay(self, piece: Piece) -> float:
        driver = self._driver
        if self._flush is not None:
            driver.fill(self._flush.part(0, self._flush.size_bytes), 0, self.origin)
        driver.record(self._start, self.origin)
        driver.replay(piece.graph, self.origin)
        driver.record(self._end, self.origin)
        driver.sync(self.origin)
        return driver.elapsed_us(self._start, self._end)

    def forget(self, piece: Piece) -> None:
        """Give a piece back."""
        self._made = [thing for thing in self._made if thing is not piece.graph]
        self._driver.destroy(piece.graph)

    def drain(self) -> None:
        """Wait for everything that was issued; of a lost device there is nothing to wait for."""
        for thing in self._made:
            if isinstance(thing, Stream):
                with suppress(CudaFailed):
                    self._driver.sync(thing)

    def close(self) -> None:
        """Give everything back; may be called twice."""
        self.drain()
        made, self._made = self._made, []
        for thing in reversed(made):
            try:
                self._driver.destroy(thing)
            except CudaFailed:
                continue

    def _stream(self) -> Stream:
        stream = self._driver.create_stream(self._device)
        self._made.append(stream)
        return stream

    def _event(self, is_timed: bool) -> Event:
        event = self._driver.create_event(self._device, is_timed)
        self._made.append(event)
        return event
