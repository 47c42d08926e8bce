"""A timeline: what ran where and when, predicted by the simulator or measured on devices."""

from dataclasses import dataclass
from typing import Literal

from hios.errors import HiosError
from hios.ir.ids import DeviceId, StageId, StreamId
from hios.ir.serial import decode_json, encode_json

__all__ = ["Timeline", "TimelineEvent"]


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One operator or one transfer.

    Attributes
    ----------
    kind
        ``operator`` or ``transfer``.
    subject
        Operator id, or tensor id for a transfer.
    device
        Where the operator runs; the source of a transfer.
    start_us, end_us
        From the start of the run.
    stream
        Of an operator; None for a transfer on a link of its own.
    stage
        Of an operator on a staged device.
    dst
        Destination of a transfer.
    """

    kind: Literal["operator", "transfer"]
    subject: int
    device: DeviceId
    start_us: float
    end_us: float
    stream: StreamId | None = None
    stage: StageId | None = None
    dst: DeviceId | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events in one schema, whether predicted or measured.

    Attributes
    ----------
    origin
        ``predicted`` or ``measured``.
    makespan_us
        From the start of the run until its outputs are present on the first device.
    events
        By start time, then kind, device, stream and subject.
    """

    origin: Literal["predicted", "measured"]
    makespan_us: float
    events: tuple[TimelineEvent, ...]

    def validate(self) -> None:
        """Check times: finite, ordered, inside the makespan.

        Raises
        ------
        HiosError
            On the first wrong event.
        """
        for event in self.events:
            if not 0 <= event.start_us <= event.end_us <= self.makespan_us * (1 + 1e-9) + 1e-6:
                raise HiosError(
                    f"{event.kind} {event.subject} runs from {event.start_us} to {event.end_us} "
                    f"µs, outside of a makespan of {self.makespan_us} µs"
                )

    def to_json(self) -> bytes:
        """Encode as JSON; `from_json` gives an equal timeline."""
        return encode_json(self)

    @staticmethod
    def from_json(data: bytes | str, what: str = "timeline") -> "Timeline":
        """Decode and validate.

        Raises
        ------
        HiosError
            When `data` is no timeline.
        """
        timeline = decode_json(data, Timeline, HiosError, what)
        timeline.validate()
        return timeline
