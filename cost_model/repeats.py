"""Measures one group in twenty again, in another process: what `cost_model.noise` compares."""

import time
from collections.abc import Iterable, Sequence

from cost_model.collect import CollectOptions, Progress
from cost_model.lane import Job, Lane
from cost_model.recording import make_record, new_session
from cost_model.records import GroupRecord, RecordIdentity
from cost_model.store import RecordStore
from hios.ir.graph import OpGraph
from hios.ir.ids import OpId

__all__ = ["repeat_some", "wants_repeat"]

_REPEATED_ONE_IN = 20


def repeat_some(
    graphs: Sequence[OpGraph],
    models: Sequence[str],
    records: Iterable[GroupRecord],
    lane: Lane,
    store: RecordStore,
    options: CollectOptions,
    progress: Progress | None = None,
) -> int:
    """Measure again, in another process, the groups for which that is due.

    Parameters
    ----------
    graphs, models, store, options, progress
        As in `cost_model.collect.collect`.
    records
        All records there are; groups that were measured in two sessions are done.
    lane
        Of a process that measured none of them.

    Returns
    -------
    int
        Number of groups that were measured again and are valid.
    """
    session = new_session()
    number = {name: index for index, name in enumerate(models)}
    sessions: dict[RecordIdentity, set[str]] = {}
    due: dict[RecordIdentity, GroupRecord] = {}
    for record in records:
        if wants_repeat(record) and record.source.model in number:
            sessions.setdefault(record.identity, set()).add(record.session)
            due[record.identity] = record
    todo = [record for identity, record in due.items() if len(sessions[identity]) == 1]
    started = time.monotonic()
    count = 0
    for index, record in enumerate(todo):
        if options.budget_s is not None and time.monotonic() - started >= options.budget_s:
            break
        if progress is not None:
            progress(f"again in another process: {index} of {len(todo)}", index / len(todo))
        chains = tuple(tuple(OpId(op) for op in chain) for chain in record.source.groups)
        job = Job(number[record.source.model], chains)
        facts = lane.facts(job.model)
        if (facts.device.name, facts.device.units) != (record.device.name, record.device.units):
            continue
        answer = lane.measure(job, options.measuring)
        again = make_record(graphs, models, job, facts, answer, session)
        if again.group_id != record.group_id:
            continue  # the graph has changed since
        store.append(again)
        count += again.valid
    return count


def wants_repeat(record: GroupRecord) -> bool:
    """Return whether a group is one of those that are measured again, always the same ones."""
    return record.valid and int(record.group_id, 16) % _REPEATED_ONE_IN == 0
