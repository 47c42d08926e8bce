"""One measured group of concurrent operators: what ran, how long, where, and whether to trust it.

A record is one line of JSON. It names operators by structural keys, never models or layers by
names (`Source.model` is there only to keep the groups of one model out of training). It holds all
that features need, so that a model can be trained where no device and no compiler is.

A group has chains, one for each stream, that start together. Its `group_id` tells groups apart
that could take different times: it does not depend on which stream a chain got, nor on the
device, so that one group measured on two devices has one id. A measurement that failed is kept
with its reason and without times.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from graph_executor.timed_device import Cache, Mode, TimedDevice
from hios.errors import InvalidRecord
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId
from hios.ir.operator_key import operator_key
from hios.ir.serial import encode_json
from hios.statistics import Samples

__all__ = [
    "SCHEMA",
    "GroupRecord",
    "OperatorRecord",
    "RecordIdentity",
    "Source",
    "Spread",
    "decode_record",
    "describe_operator",
    "encode_record",
    "group_id",
]

SCHEMA = 1
"""Raised when a field changes its meaning; new optional fields do not raise it."""

RecordIdentity = tuple[str, str, int]
"""A group on a kind of device: `GroupRecord.group_id`, and name and units of the device."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A time that was measured several times, in microseconds.

    Attributes
    ----------
    p10, p50, p90
        Percentiles; `p50` is the time.
    n
        Number of samples.
    """

    p10: float
    p50: float
    p90: float
    n: int

    @staticmethod
    def of(times_us: Sequence[float]) -> "Spread":
        """Return the percentiles of samples, to the nanosecond.

        Raises
        ------
        InvalidOption
            When there are none.

        Examples
        --------
        >>> Spread.of([3.0, 1.0, 2.0]).p50
        2.0
        """
        samples = Samples.of(times_us)
        p10, p50, p90 = (round(samples.percentile_us(p), 3) for p in (10, 50, 90))
        return Spread(p10, p50, p90, len(samples.times_us))


@dataclass(frozen=True, slots=True)
class OperatorRecord:
    """One operator of a group.

    Attributes
    ----------
    key
        See `hios.ir.operator_key.operator_key`.
    stream, position
        Its chain, and its place there, both from 0.
    kind
        Family of the operator, as in `hios.ir.graph.Operator`.
    dtype
        Of its first output.
    inputs, outputs
        Shapes, in the order in which the kernel takes them.
    flops, bytes_read, bytes_written
        Static work of one call.
    launch
        On CUDA ``grid``, ``block``, ``shared_bytes``, ``registers``, ``local_bytes``; on a CPU
        ``parallel_extent``; what is unknown is left out.
    solo_us
        Alone on the device, at its full width; None in a failed measurement.
    narrow_us
        Alone on one core; CPU only.
    """

    key: str
    stream: int
    position: int
    kind: str
    dtype: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    flops: float
    bytes_read: int
    bytes_written: int
    launch: Mapping[str, int] = field(default_factory=dict)
    solo_us: Spread | None = None
    narrow_us: Spread | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a group was met; no feature is made of it.

    Attributes
    ----------
    model
        As on the command line, ``zoo:squeezenet@224``; splits by model go by it.
    groups
        The chains as operator ids in that model's graph, in the order of streams.
    """

    model: str
    groups: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One measurement of one group.

    Attributes
    ----------
    schema
        `SCHEMA`.
    group_id
        See `group_id`.
    ops
        By stream, then position.
    streams
        Number of chains.
    order
        Launch order as indices into `ops`. Empty where chains have threads of their own (CPU)
        and start at once.
    widths
        Cores of each stream (CPU), empty on CUDA.
    mode, cache
        See `graph_executor.timed_device`.
    serial_us
        All operators one after another, each at full width.
    group_us
        From the common start until the last chain has ended.
    device
        What ran it.
    target
        TVM's JSON of the target that the kernels were compiled for.
    env
        Versions: ``tvm``, ``driver``, ``cuda``, ``os``, ...
    source
        Where the group was met.
    date
        When, ISO 8601 in UTC.
    session
        One process, or round over all groups, that measured; a group measured again in another
        one shows the noise.
    drift
        Change of the sentinel over the batch that the record belongs to, as a fraction; 0 where
        there was none.
    valid
        Whether the times may be used.
    reject
        Why not; empty when valid.
    """

    schema: int
    group_id: str
    ops: tuple[OperatorRecord, ...]
    streams: int
    order: tuple[int, ...]
    widths: tuple[int, ...]
    mode: Mode
    cache: Cache
    serial_us: Spread | None
    group_us: Spread | None
    device: TimedDevice
    target: str
    env: Mapping[str, str]
    source: Source
    date: str
    session: str
    drift: float = 0.0
    valid: bool = True
    reject: str = ""

    @property
    def identity(self) -> RecordIdentity:
        """What measurements of the same group on the same kind of device have in common."""
        return self.group_id, self.device.name, self.device.units

    @property
    def chains(self) -> tuple[tuple[OperatorRecord, ...], ...]:
        """The operators of each stream, in order."""
        found: list[list[OperatorRecord]] = [[] for _ in range(self.streams)]
        for op in self.ops:
            found[op.stream].append(op)
        return tuple(tuple(chain) for chain in found)

    def validate(self) -> None:
        """Check that the record is whole and does not contradict itself.

        Raises
        ------
        InvalidRecord
            On the first rule broken.
        """
        self._validate_shape()
        if not self.valid:
            if not self.reject:
                raise InvalidRecord(f"group {self.group_id} is not valid but tells no reason")
            return
        if self.reject:
            raise InvalidRecord(f"group {self.group_id} is valid but rejected: {self.reject}")
        if self.group_us is None or self.serial_us is None:
            raise InvalidRecord(f"group {self.group_id} is valid but has no times")
        times = [("group_us", self.group_us), ("serial_us", self.serial_us)]
        for op in self.ops:
            if op.solo_us is None:
                raise InvalidRecord(f"group {self.group_id}: operator {op.key} has no solo time")
            times.append((f"solo_us of {op.key}", op.solo_us))
            if op.narrow_us is not None:
                times.append((f"narrow_us of {op.key}", op.narrow_us))
        for what, time in times:
            if not 0.0 < time.p10 <= time.p50 <= time.p90 < math.inf or time.n < 1:
                raise InvalidRecord(
                    f"group {self.group_id}: {what} is {time.p10}, {time.p50}, {time.p90} µs of "
                    f"{time.n} samples; need 0 < p10 ≤ p50 ≤ p90 < ∞ and n ≥ 1"
                )

    def _validate_shape(self) -> None:
        name = f"group {self.group_id}"
        if self.schema != SCHEMA:
            raise InvalidRecord(
                f"{name} has schema {self.schema}; this version reads {SCHEMA}: collect again"
            )
        places = [(op.stream, op.position) for op in self.ops]
        if not places or places != sorted(places):
            raise InvalidRecord(f"{name} has no operators, or not by stream and position")
        counts = [0] * self.streams
        for stream, position in places:
            if not 0 <= stream < self.streams or position != counts[stream]:
                raise InvalidRecord(f"{name} has an operator at stream {stream}, place {position}")
            counts[stream] += 1
        if 0 in counts:
            raise InvalidRecord(f"{name} has a stream without operators: {counts}")
        if self.order and sorted(self.order) != list(range(len(self.ops))):
            raise InvalidRecord(f"{name}: its order {self.order} does not name each operator once")
        if self.widths and (len(self.widths) != self.streams or min(self.widths) < 1):
            raise InvalidRecord(f"{name} has {self.streams} streams of widths {self.widths}")
        if self.device.units < 1:
            raise InvalidRecord(
                f"{name}: device {self.device.name!r} has {self.device.units} units"
            )
        for op in self.ops:
            if not op.key or op.flops < 0 or op.bytes_read < 0 or op.bytes_written < 0:
                raise InvalidRecord(f"{name}: operator {op.key!r} has no key, or negative work")
        if self.group_id != group_id(self.ops, self.order, self.mode, self.cache):
            raise InvalidRecord(f"{name} is called by an id that is not its own")


def group_id(ops: Sequence[OperatorRecord], order: Sequence[int], mode: Mode, cache: Cache) -> str:
    """Return the identity of a group: 16 hexadecimal digits.

    Parameters
    ----------
    ops
        By stream, then position; see `GroupRecord.ops`.
    order
        Launch order as indices into `ops`, or empty.
    mode, cache
        How it is run.

    Notes
    -----
    Chains are sorted by their keys, and the order is told by their ranks, so swapping two
    streams changes nothing, and swapping two equal operators does not either.
    """
    chains: dict[int, list[str]] = {}
    for op in ops:
        chains.setdefault(op.stream, []).append(op.key)
    ranks = {keys: rank for rank, keys in enumerate(sorted({tuple(c) for c in chains.values()}))}
    rank_of = {stream: ranks[tuple(keys)] for stream, keys in chains.items()}
    identity = {
        "chains": sorted(chains.values()),
        "order": [rank_of[ops[index].stream] for index in order],
        "mode": mode,
        "cache": cache,
    }
    return hashlib.sha256(encode_json(identity)).hexdigest()[:16]


def describe_operator(
    graph: OpGraph,
    op: OpId,
    stream: int = 0,
    position: int = 0,
    solo_us: Spread | None = None,
    narrow_us: Spread | None = None,
) -> OperatorRecord:
    """Return an operator of a graph as a record holds it.

    Records and live groups both go through here, so a feature means the same in both. Without
    a key (a graph file) the record's is empty, which `GroupRecord.validate` refuses.
    """
    operator = graph.operators[op]
    scratch = operator.attrs.get("workspaces", 0)
    results = operator.outputs[: len(operator.outputs) - int(scratch)]
    return OperatorRecord(
        key=operator_key(graph, op) or "",
        stream=stream,
        position=position,
        kind=operator.kind,
        dtype=graph.tensors[operator.outputs[0]].dtype if operator.outputs else "",
        inputs=tuple(graph.tensors[t].shape for t in operator.inputs),
        outputs=tuple(graph.tensors[t].shape for t in results),
        flops=operator.flops,
        bytes_read=operator.bytes_read,
        bytes_written=operator.bytes_written,
        launch=dict(operator.launch),
        solo_us=solo_us,
        narrow_us=narrow_us,
    )


def encode_record(record: GroupRecord) -> bytes:
    """Return the record as one line of JSON, newline included."""
    return encode_json(record) + b"\n"


def decode_record(line: bytes | str, what: str = "record") -> GroupRecord:
    """Read one line and validate it; unknown fields are ignored.

    Raises
    ------
    InvalidRecord
        When it is damaged, of another schema, or contradicts itself; `what` names it.
    """
    try:
        record = msgspec.json.decode(line, type=GroupRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidRecord(f"{what}: no valid record: {problem}") from problem
    try:
        record.validate()
    except InvalidRecord as problem:
        raise InvalidRecord(f"{what}: {problem}") from None
    return record
