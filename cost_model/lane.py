"""Where groups are measured: one group at a time, here or on another machine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cost_model.candidates import Chains
from graph_executor.group_timer import GroupOptions
from graph_executor.measure_service import GroupAnswer, GroupRequest, Service, ServiceFacts
from hios.errors import ExecutionError
from hios.ir.serial import decode_json, encode_json

__all__ = ["Job", "Lane"]


@dataclass(frozen=True, slots=True)
class Job:
    """A group to measure: the number of its graph, and its chains."""

    model: int
    chains: Chains


class Lane:
    """One place that measures one group at a time.

    Parameters
    ----------
    name
        For people.
    service
        What measures there.
    artifacts
        The artifact of each graph of the collection, made when first asked for.
    """

    def __init__(self, name: str, service: Service, artifacts: Callable[[int], Path]) -> None:
        self.name = name
        self._service = service
        self._artifacts = artifacts
        self._facts: dict[int, ServiceFacts] = {}

    def facts(self, model: int) -> ServiceFacts:
        """Make a graph ready, if it is not yet, and return where and how it is measured.

        Raises
        ------
        HiosError
            When it cannot be used there.
        """
        if model not in self._facts:
            answer = self._service.open(str(self._artifacts(model)))
            self._facts[model] = decode_json(answer, ServiceFacts, ExecutionError, self.name)
        return self._facts[model]

    def known_facts(self, model: int) -> ServiceFacts | None:
        """Return what `facts` said of a graph; None where it was not made ready."""
        return self._facts.get(model)

    def measure(self, job: Job, options: GroupOptions) -> GroupAnswer:
        """Measure a group.

        Raises
        ------
        HiosError
            When the lane is no longer there.
        """
        request = GroupRequest(str(self._artifacts(job.model)), job.chains, options)
        answer = self._service.measure(encode_json(request).decode())
        return decode_json(answer, GroupAnswer, ExecutionError, self.name)
