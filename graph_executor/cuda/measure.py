"""Measures groups of operators on a CUDA device (`graph_executor.group_timer.GroupTimer`).

Each thing that is compared is captured as a graph of its own: every operator alone, all of them
one after another, and the groups at once between a fork and a join, as a stage of a plan runs
them. Rounds take all of these in turn. Operators keep the memory that they have in the small
graph of `graph_executor.group_graph`, one result of each for the serial and one for the grouped
launch, so that both can be compared bit for bit.

The clocks are read before and after: a round on a card that heat or power holds back is refused.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from graph_executor.cuda.cards import DeviceHealth
from graph_executor.cuda.devices import check_architecture, check_devices, ordinal_of
from graph_executor.cuda.driver import Driver, Stream
from graph_executor.cuda.memory import Arenas
from graph_executor.cuda.open import is_installed, open_driver
from graph_executor.cuda.stopwatch import Stopwatch
from graph_executor.group_graph import GroupGraph, InputPool, group_graph
from graph_executor.group_timer import Round
from graph_executor.planner import make_plan
from graph_executor.timed_device import Cache, Mode, TimedDevice
from hios.costs.protocol import Stage
from hios.errors import ExecutionError, InvalidOption
from hios.ir.ids import DeviceId, OpId
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Device, Machine

__all__ = ["CudaGroupRun", "CudaGroupTimer", "launch_order", "open_cuda_timer"]

_HOME = DeviceId(0)
_REPEATS = 50
_HEALTH_S = 0.5
"""An answer about the card's clocks is good for so long."""


def launch_order(groups: Stage) -> tuple[int, ...]:
    """Return the order in which the operators of groups are launched.

    The groups take turns, as `graph_executor.cuda.issue` has it.

    Returns
    -------
    tuple of int
        Indices into the operators, group after group.

    Examples
    --------
    >>> launch_order(((7, 8, 9), (5,), (2, 3)))
    (0, 3, 4, 1, 5, 2)
    """
    starts = []
    count = 0
    for group in groups:
        starts.append(count)
        count += len(group)
    longest = max((len(group) for group in groups), default=0)
    return tuple(
        start + turn
        for turn in range(longest)
        for start, group in zip(starts, groups, strict=True)
        if turn < len(group)
    )


class CudaGroupTimer:
    """Measures on one CUDA device.

    Parameters
    ----------
    compiled
        Graph, kernels and weights.
    device
        Of kind ``cuda``.
    driver
        CUDA.
    is_cold
        Empty the L2 cache before every replay; with a warm one, pieces are repeated.
    repeats
        How often a piece is held in its graph at most, while the cache is warm.
    health
        Tells clocks and throttle reasons by ordinal, or None; by default NVML does.

    Raises
    ------
    DeviceUnavailable
        When the device is not there.
    """

    mode: Mode = "graph"

    def __init__(
        self,
        compiled: CompiledGraph,
        device: Device,
        driver: Driver,
        *,
        is_cold: bool = False,
        repeats: int = _REPEATS,
        health: Callable[[int], DeviceHealth | None] | None = None,
    ) -> None:
        self.cache: Cache = "cold" if is_cold else "warm"
        self._compiled = compiled
        self._driver = driver
        self._ordinal = ordinal_of(device)
        self._machine_device = device
        self._repeats = repeats
        self._inputs = InputPool()
        self._health = _seldom(partial(health or _ask_nvml, self._ordinal))
        self._facts = driver.facts(self._ordinal)
        self._sentinel: CudaGroupRun | None = None

    @property
    def device(self) -> TimedDevice:
        """The device."""
        facts, described = self._facts, self._machine_device
        return TimedDevice(
            name=facts.name,
            kind="cuda",
            uuid=facts.uuid,
            units=facts.multiprocessors,
            clock_mhz=facts.clock_khz // 1000,
            bandwidth_gb_s=described.bandwidth_gb_s,
            peak_gflops=described.peak_gflops,
            cache_bytes=facts.l2_bytes,
            limits=facts.limits,
        )

    def widths(self, groups: Stage) -> tuple[int, ...]:
        """Return nothing: groups share all multiprocessors."""
        del groups
        return ()

    def order(self, groups: Stage) -> tuple[int, ...]:
        """Return the launch order; see `launch_order`."""
        return launch_order(groups)

    def open(self, groups: Stage) -> "CudaGroupRun":
        """Make groups ready."""
        return CudaGroupRun(
            self._compiled,
            self._machine_device,
            self._driver,
            groups,
            self._inputs,
            self._repeats,
            self.cache == "cold",
            self._health,
        )

    def sentinel(self, count: int) -> list[float]:
        """Time the largest operator of the graph, which never changes."""
        if self._sentinel is None:
            largest = max(self._compiled.graph.operators, key=lambda op: (op.flops, -op.id))
            self._sentinel = self.open(((largest.id,),))
        return [self._sentinel.solo_us(0) for _ in range(count)]

    def close(self) -> None:
        """Give the sentinel back."""
        if self._sentinel is not None:
            self._sentinel.close()
            self._sentinel = None


def open_cuda_timer(compiled: CompiledGraph, device: Device) -> CudaGroupTimer:
    """Return a timer for a CUDA device of this host.

    Raises
    ------
    DeviceUnavailable
        When it is not there.
    MissingDependency
        When cuda-core or cuda-bindings is not installed.
    """
    driver = open_driver()
    ordinals = check_devices(driver, Machine("measure", (device,)))
    check_architecture(driver, ordinals, compiled.library.target)
    return CudaGroupTimer(compiled, device, driver)


def _seldom(ask: Callable[[], DeviceHealth | None]) -> Callable[[], DeviceHealth | None]:
    """Return `ask`, with an answer kept for a while: asking takes milliseconds, heating seconds."""
    asked_at = -math.inf
    known: DeviceHealth | None = None

    def answer() -> DeviceHealth | None:
        nonlocal asked_at, known
        if time.monotonic() - asked_at > _HEALTH_S or (known is not None and known.is_throttled):
            asked_at, known = time.monotonic(), ask()
        return known

    return answer


def _ask_nvml(ordinal: int) -> DeviceHealth | None:
    if not is_installed():
        return None
    from graph_executor.cuda.nvml import device_health

    return device_health(ordinal)


class CudaGroupRun:
    """Groups ready to be timed (`graph_executor.group_timer.GroupRun`)."""

    def __init__(
        self,
        compiled: CompiledGraph,
        device: Device,
        driver: Driver,
        groups: Stage,
        inputs: InputPool,
        repeats: int,
        is_cold: bool,
        health: Callable[[], DeviceHealth | None],
    ) -> None:
        self._driver = driver
        self._ordinal = ordinal_of(device)
        self._health = health
        self._watch: Stopwatch | None = None
        self._arenas: Arenas | None = None
        self._small: GroupGraph = group_graph(compiled, groups, inputs)
        self._order = launch_order(groups)
        self._stream_of = [n for n, group in enumerate(groups) for _ in group]
        graph = self._small.compiled.graph
        own = Device(device.name, "cuda", max(1, len(groups)), hardware=f"cuda:{self._ordinal}")
        machine = Machine("group", (own,))
        plan = make_plan(graph, machine, self._small.schedule)
        try:
            watch = self._watch = Stopwatch(driver, self._ordinal, len(groups), repeats, is_cold)
            self._arenas = Arenas(driver, plan, graph, machine, (self._ordinal,))
            home = {self._ordinal: watch.origin}
            self._arenas.upload_weights(self._small.compiled.params, home)
            self._arenas.fill(0, home)
            module = self._small.compiled.library.module
            self._serial = [self._bind(module, op) for op in self._small.serial]
            self._group = [self._bind(module, op) for op in self._small.group]
            # Loads every kernel, outside of a capture.
            self._issue_serial()
            self._issue_group()
            driver.leave(self._ordinal)
            driver.sync(watch.origin)
            self._solo_pieces = [
                watch.capture_long(partial(self._issue_one, launch)) for launch in self._serial
            ]
            self._serial_piece = watch.capture_long(self._issue_serial)
            self._group_piece = watch.capture_long(self._issue_group)
            driver.leave(self._ordinal)
        except BaseException as problem:
            self.close()
            if isinstance(problem, RuntimeError) and not isinstance(problem, ExecutionError):
                raise ExecutionError(f"a kernel of the group failed: {problem}") from problem
            raise

    def rounds(self, count: int) -> list[Round]:
        """Time everything in turn.

        Raises
        ------
        ExecutionError
            When a kernel fails, or heat or power slow the card down.
        """
        watch = self._open()
        found = []
        for _ in range(count):
            solo = tuple(watch.time_us(piece) for piece in self._solo_pieces)
            serial = watch.time_us(self._serial_piece)
            found.append(Round(solo, (), serial, watch.time_us(self._group_piece)))
        health = self._health()
        if health is not None and health.is_throttled:
            raise ExecutionError(
                f"cuda:{self._ordinal} is slowed down ({', '.join(health.held_back_by)}) at "
                f"{health.sm_clock_mhz} MHz; let it cool down or lock its clocks"
            )
        return found

    def solo_us(self, position: int) -> float:
        """Time one operator alone."""
        return self._open().time_us(self._solo_pieces[position])

    def difference(self) -> str:
        """Run both once, from poisoned memory, and compare the results."""
        watch, arenas, driver = self._open(), self._arenas, self._driver
        if arenas is None:
            raise InvalidOption("these groups are closed; open them again")
        graph = self._small.compiled.graph
        arenas.fill(0xFF, {self._ordinal: watch.origin})
        self._issue_serial()
        self._issue_group()
        driver.leave(self._ordinal)
        results = []
        for tensor in graph.outputs:
            data = np.zeros(max(1, graph.tensors[tensor].bytes), np.uint8)
            if graph.tensors[tensor].bytes:
                driver.download(data, arenas.region(_HOME, tensor), watch.origin)
            results.append((tensor, data))
        driver.sync(watch.origin)
        half = len(results) // 2
        for (tensor, one), (_, other) in zip(results[:half], results[half:], strict=True):
            if one.tobytes() != other.tobytes():
                producer = graph.producer(tensor)
                name = "" if producer is None else graph.operators[producer].kernel
                return f"operator {name!r}"
        return ""

    def close(self) -> None:
        """Give everything back; may be called twice."""
        self._serial, self._group, self._solo_pieces = [], [], []
        if self._watch is not None:
            self._watch.close()
        if self._arenas is not None:
            self._arenas.close()
        self._watch, self._arenas = None, None

    def _bind(self, module: Any, op: OpId) -> Callable[[], None]:
        operator = self._small.compiled.graph.operators[op]
        if self._arenas is None:
            raise InvalidOption("these groups are closed; open them again")
        tensors = [self._arenas.tensor(_HOME, t) for t in (*operator.inputs, *operator.outputs)]
        kernel = self._driver.find_kernel(module, operator.kernel)
        return partial(self._driver.launch, self._ordinal, kernel, tensors)

    def _issue_one(self, launch: Callable[[], None]) -> None:
        self._driver.use(self._open().origin)
        launch()

    def _issue_serial(self) -> None:
        self._driver.use(self._open().origin)
        for launch in self._serial:
            launch()

    def _issue_group(self) -> None:
        watch = self._open()
        watch.fork()
        current: Stream | None = None
        for position in self._order:
            stream = watch.sides[self._stream_of[position]]
            if stream is not current:
                self._driver.use(stream)
                current = stream
            self._group[position]()
        watch.join()

    def _open(self) -> Stopwatch:
        if self._watch is None:
            raise InvalidOption("these groups are closed; open them again")
        return self._watch
