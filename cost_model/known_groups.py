"""What a file of records says of groups before they are measured.

Groups that it has are not measured again, so a collection that was stopped goes on where it was;
those that were rejected because the machine changed meanwhile are. Operators that it has times of
tell of a new group whether it would take too long.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from cost_model.candidates import Chains
from cost_model.records import GroupRecord, RecordIdentity, describe_operator, group_id
from graph_executor.measure_service import ServiceFacts
from graph_executor.timed_device import TimedDevice
from hios.ir.graph import OpGraph

__all__ = ["KnownGroups", "is_drifted", "plain_identity"]

_DRIFTED = "the sentinel"
"""How the reason begins that another moment may not bring: such groups have another chance."""


class KnownGroups:
    """Groups that need no measurement, and times of operators; one thread at a time.

    Parameters
    ----------
    records
        Of the file.
    visits
        How often a group has to be there to be known.
    """

    def __init__(self, records: Iterable[GroupRecord], visits: int = 1) -> None:
        self._is_valid: dict[RecordIdentity, bool] = {}
        seen: Counter[RecordIdentity] = Counter()
        self._solo_us: dict[tuple[str, str, int], float] = {}
        for record in records:
            self.learn(record)
            plain = group_id(record.ops, (), record.mode, record.cache)
            identity = (plain, record.device.name, record.device.units)
            if record.valid:
                seen[identity] += 1
                if seen[identity] >= visits:
                    self._is_valid[identity] = True
            elif not is_drifted(record.reject):
                self._is_valid.setdefault(identity, False)

    def is_valid(self, identity: RecordIdentity) -> bool | None:
        """Return whether a group's record is valid, or it is taken; None where it is not known."""
        return self._is_valid.get(identity)

    def take(self, identity: RecordIdentity) -> None:
        """Count a group as known from now on: somebody measures it."""
        self._is_valid[identity] = True

    def give_back(self, identity: RecordIdentity) -> None:
        """Forget a group: whoever took it could not measure it."""
        self._is_valid.pop(identity, None)

    def learn(self, record: GroupRecord) -> None:
        """Keep the times that its operators take alone."""
        for op in record.ops:
            if op.solo_us is not None:
                key = (op.key, record.device.name, record.device.units)
                self._solo_us[key] = op.solo_us.p50

    def solo_us(self, keys: Sequence[str], device: TimedDevice) -> float:
        """Return the sum of the solo times of operators; those not known count nothing."""
        return sum(self._solo_us.get((key, device.name, device.units), 0.0) for key in keys)


def plain_identity(graph: OpGraph, chains: Chains, facts: ServiceFacts) -> RecordIdentity:
    """Return what a group to measure is known by, to `KnownGroups`.

    Groups launched in an order of their own are told apart by their streams alone: one order is
    measured for each.
    """
    ops = [
        describe_operator(graph, op, stream, position)
        for stream, chain in enumerate(chains)
        for position, op in enumerate(chain)
    ]
    return group_id(ops, (), facts.mode, facts.cache), facts.device.name, facts.device.units


def is_drifted(reject: str) -> bool:
    """Return whether a group was rejected because the machine changed meanwhile."""
    return reject.startswith(_DRIFTED)
