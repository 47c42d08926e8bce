"""Measures groups in a process of its own: another address space, other pages, other threads.

The difference between two processes is the noise that no model of one measurement can beat.
"""

import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from graph_executor.measure_service import MeasureService
from hios.errors import ExecutionError
from hios.ir.machine import Device

__all__ = ["SecondProcess"]

_END_S = 5.0


class SecondProcess:
    """A `graph_executor.measure_service.MeasureService` in a process that is started anew.

    Parameters
    ----------
    device
        Where it measures.
    patience_s
        How long one answer may take.
    """

    def __init__(self, device: Device, patience_s: float = 120.0) -> None:
        # Not a fork: threads and TVM's pools would be half there.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe: Connection[tuple[str, str], tuple[bool, str]] = ours
        self._patience_s = patience_s
        self._process = context.Process(target=_serve, args=(theirs, device), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid or 0

    def open(self, artifact: str) -> str:
        """As `MeasureService.open`.

        Raises
        ------
        ExecutionError
            When it fails there, or the process died.
        """
        return self._ask("open", artifact)

    def measure(self, request: str) -> str:
        """As `MeasureService.measure`.

        Raises
        ------
        ExecutionError
            When it fails there, or the process died.
        """
        return self._ask("measure", request)

    def _ask(self, what: str, text: str) -> str:
        try:
            self._pipe.send((what, text))
            if not self._pipe.poll(self._patience_s):
                self.close()
                raise ExecutionError(
                    f"the measuring process gave no answer in {self._patience_s:g} s; it was ended"
                )
            is_well, answer = self._pipe.recv()
        except (EOFError, OSError) as problem:
            raise ExecutionError("the measuring process has died; measure again") from problem
        if not is_well:
            raise ExecutionError(answer)
        return answer

    def close(self) -> None:
        """End the process; may be called twice."""
        self._pipe.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _serve(pipe: "Connection[tuple[bool, str], tuple[str, str]]", device: Device) -> None:
    service = MeasureService(device)
    verbs = {"open": service.open, "measure": service.measure}
    try:
        while True:
            what, text = pipe.recv()
            try:
                pipe.send((True, verbs[what](text)))
            except Exception as problem:  # noqa: BLE001 - told to the process that asked
                pipe.send((False, f"{problem}"))
    except (EOFError, OSError, KeyboardInterrupt):
        return
    finally:
        service.close()
