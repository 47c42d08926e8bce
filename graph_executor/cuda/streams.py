"""The streams and events of a plan, all made before anything runs.

Each list of the plan has a stream of its own: a list of a device on that device, a list of a
link on the link's source, which pushes. Besides, each GPU has one for uploads and fills; that of
the first device is the *origin*, from which every run starts and to which it returns.
"""

from graph_executor.cuda.driver import CudaFailed, Driver, Event, Stream
from graph_executor.plan import LinkQueue, Plan, Record

__all__ = ["Streams"]


class Streams:
    """Streams, and the events between them.

    Parameters
    ----------
    driver
        CUDA.
    plan
        Whose lists get streams, and whose events get events.
    ordinals
        The GPU of each logical device.

    Attributes
    ----------
    queues
        The stream of each list of the plan.
    events
        The event of each event of the plan, made for the device of the list that records it.
    own
        For each GPU the stream of uploads and fills.
    begin
        Recorded on the origin when a run starts.
    done
        For each list, recorded when it has ended.
    ready
        For each GPU but the first, recorded after uploads and fills.
    """

    def __init__(self, driver: Driver, plan: Plan, ordinals: tuple[int, ...]) -> None:
        self._driver = driver
        self._made: list[Stream | Event] = []
        self.queues: list[Stream] = []
        self.events: dict[int, Event] = {}
        self.own: dict[int, Stream] = {}
        self.done: list[Event] = []
        self.ready: dict[int, Event] = {}
        try:
            for ordinal in dict.fromkeys(ordinals):
                self.own[ordinal] = self._stream(ordinal)
                if ordinal != ordinals[0]:
                    self.ready[ordinal] = self._event(ordinal)
            self.origin = self.own[ordinals[0]]
            self.begin = self._event(ordinals[0])
            for queue in plan.queues:
                device = queue.src if isinstance(queue, LinkQueue) else queue.device
                ordinal = ordinals[device]
                self.queues.append(self._stream(ordinal))
                self.done.append(self._event(ordinal))
                for instruction in queue.instructions:
                    if isinstance(instruction, Record):
                        self.events[instruction.event] = self._event(ordinal)
        except BaseException:
            self.close()
            raise

    @property
    def all(self) -> tuple[Stream, ...]:
        """Every stream."""
        return (*self.own.values(), *self.queues)

    def settle(self) -> None:
        """Let the origin wait for what was issued to the other GPUs' own streams."""
        for ordinal, event in self.ready.items():
            self._driver.record(event, self.own[ordinal])
            self._driver.wait(self.origin, event)

    def drain(self) -> CudaFailed | None:
        """Wait on the host for every stream, and return the first failure that this shows."""
        found: CudaFailed | None = None
        for stream in self.all:
            try:
                self._driver.sync(stream)
            except CudaFailed as failed:
                found = found or failed
        return found

    def close(self) -> None:
        """Give all of them back, also where giving back some of it fails."""
        made, self._made = self._made, []
        self.queues, self.events, self.own, self.done, self.ready = [], {}, {}, [], {}
        for thing in reversed(made):
            try:
                self._driver.destroy(thing)
            except CudaFailed:
                continue

    def _stream(self, ordinal: int) -> Stream:
        stream = self._driver.create_stream(ordinal)
        self._made.append(stream)
        return stream

    def _event(self, ordinal: int) -> Event:
        event = self._driver.create_event(ordinal)
        self._made.append(event)
        return event
