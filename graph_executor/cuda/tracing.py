"""When every launch and copy ran: an eager run between timed events.

The time between two events can be read only where both belong to one device, so each GPU has a
zero of its own, recorded right after the fork. The zeros of two GPUs differ by the latency of a
wait between devices, a few microseconds.
"""

from collections.abc import Sequence

from graph_executor.backend import Stamp
from graph_executor.cuda.driver import CudaFailed, Driver, Event, Stream
from graph_executor.cuda.steps import Step

__all__ = ["Tracer"]


class Tracer:
    """Timed events around the actions of a plan.

    Parameters
    ----------
    driver
        CUDA.
    body
        The calls of the plan.
    origin
        Where runs start and end.
    """

    def __init__(self, driver: Driver, body: Sequence[Step], origin: Stream) -> None:
        self._driver = driver
        self._origin = origin
        self._made: list[Event] = []
        self._zero: dict[int, tuple[Event, Stream]] = {}
        self._around: list[tuple[Step, Event, Event]] = []
        try:
            self._first, self._last = self._event(origin.device), self._event(origin.device)
            for step in body:
                if step.is_action:
                    device = step.stream.device
                    if device not in self._zero:
                        self._zero[device] = (self._event(device), step.stream)
                    around = (step, self._event(device), self._event(device))
                    self._around.append(around)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Mark the start of a run; call it after the fork."""
        self._driver.record(self._first, self._origin)
        for event, stream in self._zero.values():
            self._driver.record(event, stream)

    def before(self, action: int) -> None:
        """Mark the start of the n-th action."""
        step, start, _ = self._around[action]
        self._driver.record(start, step.stream)

    def after(self, action: int) -> None:
        """Mark its end."""
        step, _, end = self._around[action]
        self._driver.record(end, step.stream)

    def end(self) -> None:
        """Mark the end of a run; call it after the join."""
        self._driver.record(self._last, self._origin)

    def read(self) -> tuple[float, tuple[Stamp, ...]]:
        """Return the length of the run and when each action ran; the run is over."""
        stamps = []
        longest = self._driver.elapsed_us(self._first, self._last)
        for step, start, end in self._around:
            zero, _ = self._zero[step.stream.device]
            begin_us = max(0.0, self._driver.elapsed_us(zero, start))
            end_us = max(begin_us, self._driver.elapsed_us(zero, end))
            longest = max(longest, end_us)
            if step.queue is not None and step.position is not None:
                stamps.append(Stamp(step.queue, step.position, begin_us, end_us))
        return longest, tuple(stamps)

    def close(self) -> None:
        """Give the events back."""
        made, self._made = self._made, []
        for event in made:
            try:
                self._driver.destroy(event)
            except CudaFailed:
                continue

    def _event(self, device: int) -> Event:
        event = self._driver.create_event(device, True)
        self._made.append(event)
        return event
