"""Measuring on other machines through TVM's RPC: a tracker, servers, and who asks.

A server is a `graph_executor.measure_service.MeasureService` whose two calls are global functions
that take and return JSON; the timing loop runs there, so the network is in no sample. TVM serves
each session in a process of its own. RPC runs whatever it is sent and is not encrypted: for
trusted networks only.
"""

import ctypes
import signal
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tvm
from tvm import rpc

from graph_executor.measure_service import GroupRequest, MeasureService
from hios.errors import (
    DeviceUnavailable,
    ExecutionError,
    HiosError,
    InvalidOption,
    MissingDependency,
)
from hios.ir.machine import Device
from hios.ir.serial import decode_json, encode_json

__all__ = ["MeasureServers", "RemoteService", "count_servers"]

_OPEN = "hios.measure.open"
_MEASURE = "hios.measure.measure"

SESSION_S = 6 * 3600
"""How long one session may last; TVM's own 10 s end in the middle of a group."""

_CONNECT_S = 5.0

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a call gives back: an exception would come with a traceback of the other side."""

    answer: str = ""
    error: str = ""


class MeasureServers:
    """One server for each device of this machine, registered with a tracker.

    Parameters
    ----------
    devices
        Each gets a server of its own.
    tracker
        Host and port of the tracker.
    key
        Under which clients ask the tracker for these servers.
    host
        Address to listen at.
    port
        First port to try.

    Raises
    ------
    MissingDependency
        When a package that RPC needs is not installed.
    ExecutionError
        When a server cannot start.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        tracker: tuple[str, int],
        key: str,
        host: str = "0.0.0.0",
        port: int = 9091,
    ) -> None:
        _require("cloudpickle", "psutil")
        self._servers: list[Any] = []
        try:
            for device in devices:
                server = rpc.Server(
                    host=host,
                    port=port,
                    port_end=port + 1000,
                    tracker_addr=tracker,
                    key=key,
                    silent=True,
                    server_init_callback=partial(_register, encode_json(device).decode()),
                )
                self._servers.append(server)
        except (OSError, RuntimeError, ValueError) as problem:
            self.close()
            raise ExecutionError(f"cannot start a measuring server: {problem}") from problem

    @property
    def ports(self) -> tuple[int, ...]:
        """Where the servers listen."""
        return tuple(int(server.port) for server in self._servers)

    def close(self) -> None:
        """End all servers; may be called twice."""
        for server in self._servers:
            server.terminate()
        self._servers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _register(device: str) -> None:
    """Offer the two calls; runs in the server's process."""
    # However the command that started the server ends, the server does not outlive it.
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    service = MeasureService(decode_json(device, Device, DeviceUnavailable, "device"))

    def open_artifact(name: str) -> str:
        packed = Path(_workpath(name))
        folder = packed.with_suffix(".hios")
        if not folder.exists():
            with tarfile.open(packed) as archive:
                archive.extractall(folder, filter="data")
            packed.unlink()
        return service.open(str(folder))

    def measure(text: str) -> str:
        # Whoever asks knows the artifact by the name it was uploaded under.
        request = decode_json(text, GroupRequest, InvalidOption, "request to measure")
        folder = Path(_workpath(request.artifact)).with_suffix(".hios")
        return service.measure(encode_json(replace(request, artifact=str(folder))).decode())

    tvm.register_global_func(_OPEN, _answering(open_artifact), override=True)
    tvm.register_global_func(_MEASURE, _answering(measure), override=True)


def _workpath(name: str) -> str:
    # Registered by TVM for each session, so it is looked up in each.
    return str(tvm.get_global_func("tvm.rpc.server.workpath")(name))


def _answering(call: Callable[[str], str]) -> Callable[[str], str]:
    def answer(text: str) -> str:
        try:
            return encode_json(_Reply(answer=call(str(text)))).decode()
        except HiosError as problem:
            return encode_json(_Reply(error=str(problem))).decode()

    return answer


class RemoteService:
    """A session with a server (`graph_executor.measure_service.Service`).

    Parameters
    ----------
    tracker
        Host and port.
    key
        Of the servers wanted; one that is free is taken.
    patience_s
        How long to wait for one that is free.

    Raises
    ------
    DeviceUnavailable
        When the tracker does not answer, or no server is free in time.
    """

    def __init__(self, tracker: tuple[str, int], key: str, patience_s: float = 60.0) -> None:
        self._uploaded: dict[str, str] = {}
        connected = _connect(tracker)
        # A request for a server that is not free would wait without an end.
        deadline = time.monotonic() + patience_s
        while not _free_servers(connected, key):
            if time.monotonic() >= deadline:
                raise DeviceUnavailable(
                    f"no server with key {key!r} is free at tracker {tracker[0]}:{tracker[1]}; "
                    "start one with `hios serve-measure`, or wait"
                )
            time.sleep(0.2)
        try:
            self._session = connected.request(key, session_timeout=SESSION_S, max_retry=2)
        except (OSError, RuntimeError) as problem:
            raise DeviceUnavailable(
                f"a server with key {key!r} at tracker {tracker[0]}:{tracker[1]} does not answer "
                f"({_first_line(problem)}); start it again"
            ) from problem
        self._open = self._session.get_function(_OPEN)
        self._measure = self._session.get_function(_MEASURE)

    def open(self, artifact: str) -> str:
        """Upload an artifact, once in a session, and open it there.

        Raises
        ------
        ExecutionError
            When it cannot be used there, or the session has ended.
        """
        if artifact not in self._uploaded:
            name = f"model-{len(self._uploaded)}"
            with tempfile.TemporaryDirectory(prefix="hios-upload-") as folder:
                packed = Path(folder) / f"{name}.tar"
                with tarfile.open(packed, "w") as archive:
                    for part in sorted(Path(artifact).iterdir()):
                        archive.add(part, arcname=part.name)
                # Not by its path: TVM would leave the file open.
                content = bytearray(packed.read_bytes())
            self._guarded(partial(self._session.upload, content, packed.name))
            self._uploaded[artifact] = packed.name
        return self._ask(self._open, self._uploaded[artifact])

    def measure(self, request: str) -> str:
        """Measure there; see `graph_executor.measure_service.Service.measure`.

        Raises
        ------
        ExecutionError
            When it fails there, or the session has ended.
        InvalidOption
            When the request is none, or of an artifact that was not opened.
        """
        wanted = decode_json(request, GroupRequest, InvalidOption, "request to measure")
        if wanted.artifact not in self._uploaded:
            raise InvalidOption(f"artifact {wanted.artifact!r} is not open; open it first")
        there = replace(wanted, artifact=self._uploaded[wanted.artifact])
        return self._ask(self._measure, encode_json(there).decode())

    def close(self) -> None:
        """End the session; may be called twice."""
        self._session = self._open = self._measure = None

    def _ask(self, call: Any, text: str) -> str:
        if self._session is None:
            raise ExecutionError("the session is closed; make a new one")
        told = self._guarded(partial(call, text))
        reply = decode_json(str(told), _Reply, ExecutionError, "answer of the measuring server")
        if reply.error:
            raise ExecutionError(reply.error)
        return reply.answer

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (OSError, RuntimeError, tvm.error.RPCError) as problem:
            raise ExecutionError(
                f"the measuring server is gone ({_first_line(problem)}); start it again"
            ) from problem


def count_servers(tracker: tuple[str, int], key: str) -> int:
    """Return how many servers of a key a tracker knows.

    Raises
    ------
    DeviceUnavailable
        When the tracker does not answer.
    """
    known = _connect(tracker).summary()["server_info"]
    return sum(server["key"] == f"server:{key}" for server in known)


def _connect(tracker: tuple[str, int]) -> Any:
    try:
        # TVM tries for a minute; a wrong address shows at once.
        socket.create_connection(tracker, timeout=_CONNECT_S).close()
        return rpc.connect_tracker(*tracker)
    except (OSError, RuntimeError) as problem:
        raise DeviceUnavailable(
            f"no tracker answers at {tracker[0]}:{tracker[1]} ({_first_line(problem)}); start one "
            "with `python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190`"
        ) from problem


def _free_servers(connected: Any, key: str) -> int:
    return int(connected.summary()["queue_info"].get(key, {"free": 0})["free"])


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise MissingDependency(
                f"measuring servers need the package {package}; install it with "
                "`python -m pip install cloudpickle tornado`"
            )


def _first_line(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0] if lines else type(problem).__name__
