"""A model that is decided and ready to run."""

import threading
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from graph_executor.executor import GraphExecutor
from hios.costs.protocol import Costs
from hios.errors import ExecutionError
from hios.ir.graph import OpGraph
from hios.ir.kernels import CompiledGraph
from hios.ir.machine import Machine
from hios.ir.schedule import Schedule
from hios.ir.timeline import Timeline
from hios.simulator import simulate
from hios.statistics import Samples

__all__ = ["Model"]


class Model:
    """A compiled graph with its schedule; opens its executor at the first run.

    Parameters
    ----------
    compiled, machine, schedule
        What runs, where, and how.
    costs
        What the schedule was decided with; None when it came from a file.
    """

    def __init__(
        self,
        compiled: CompiledGraph,
        machine: Machine,
        schedule: Schedule,
        costs: Costs | None = None,
    ) -> None:
        self.compiled = compiled
        self.machine = machine
        self.schedule = schedule
        self.costs = costs
        self._executor: GraphExecutor | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def graph(self) -> OpGraph:
        """The operator graph."""
        return self.compiled.graph

    @property
    def executor(self) -> GraphExecutor:
        """The executor; opened when first asked for.

        Raises
        ------
        ExecutionError
            When the model is closed.
        """
        executor = self._executor
        if executor is not None:
            return executor
        with self._lock:
            if self._is_closed:
                raise ExecutionError(f"model {self.graph.name!r} is closed; build or load it again")
            if self._executor is None:
                self._executor = GraphExecutor(self.compiled, self.machine, self.schedule)
            return self._executor

    def run(self, inputs: Mapping[str, Any], *, copy: bool = True) -> dict[str, Any]:
        """Run once; see `GraphExecutor.run`."""
        return self.executor.run(inputs, copy=copy)

    def benchmark(
        self, repeat: int = 50, warmup: int = 5, inputs: Mapping[str, Any] | None = None
    ) -> Samples:
        """Time runs; see `GraphExecutor.benchmark`."""
        return self.executor.benchmark(repeat, warmup, inputs)

    def profile(
        self, runs: int = 9, warmup: int = 3, inputs: Mapping[str, Any] | None = None
    ) -> Timeline:
        """Measure when each operator runs; see `GraphExecutor.profile`."""
        return self.executor.profile(runs, warmup, inputs)

    def predict(self) -> Timeline | None:
        """Return the simulated timeline, or None when the costs are not known."""
        if self.costs is None:
            return None
        return simulate(self.graph, self.machine, self.costs, self.schedule)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the artifact folder; see `graph_executor.artifact.save_artifact`.

        Raises
        ------
        StorageError
            When it cannot be written; nothing half-written stays.
        """
        from graph_executor.artifact import save_artifact

        save_artifact(Path(path), self.compiled, self.machine, self.schedule, self.predict())

    def close(self) -> None:
        """End the executor's threads and give its memory back; may be called twice.

        Afterwards the model can be saved and predicted, but not run.

        Raises
        ------
        ExecutionError
            When a run is still going on in another thread; the model stays open.
        """
        with self._lock:
            if self._executor is not None:
                self._executor.close()
                self._executor = None
            self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
