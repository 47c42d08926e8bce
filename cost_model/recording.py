"""From what a lane measured to a record."""

import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from cost_model.lane import Job
from cost_model.records import (
    SCHEMA,
    GroupRecord,
    OperatorRecord,
    Source,
    Spread,
    describe_operator,
    group_id,
)
from graph_executor.measure_service import GroupAnswer, ServiceFacts
from hios.ir.graph import OpGraph

__all__ = ["make_record", "new_session"]


def new_session() -> str:
    """Return a name for this process that no other one has."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def make_record(
    graphs: Sequence[OpGraph],
    models: Sequence[str],
    job: Job,
    facts: ServiceFacts,
    answer: GroupAnswer,
    session: str,
) -> GroupRecord:
    """Return the record of a measurement, valid or not.

    Parameters
    ----------
    graphs, models
        Operator graphs, and what each is called.
    job
        What was measured.
    facts, answer
        Where and how, and what came of it.
    session
        See `new_session`.
    """
    graph = graphs[job.model]
    timing = answer.timing
    solo = [Spread.of(times) for times in timing.solo_us]
    narrow = [Spread.of(times) for times in timing.narrow_us]
    ops: list[OperatorRecord] = []
    for stream, chain in enumerate(job.chains):
        for position, op in enumerate(chain):
            at = len(ops)
            ops.append(
                describe_operator(
                    graph,
                    op,
                    stream,
                    position,
                    solo[at] if solo else None,
                    narrow[at] if narrow else None,
                )
            )
    return GroupRecord(
        schema=SCHEMA,
        group_id=group_id(ops, answer.order, facts.mode, facts.cache),
        ops=tuple(ops),
        streams=len(job.chains),
        order=answer.order,
        widths=answer.widths,
        mode=facts.mode,
        cache=facts.cache,
        serial_us=Spread.of(timing.serial_us) if timing.serial_us else None,
        group_us=Spread.of(timing.group_us) if timing.group_us else None,
        device=facts.device,
        target=facts.target,
        env=facts.env,
        source=Source(models[job.model], tuple(tuple(chain) for chain in job.chains)),
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        session=session,
        drift=round(timing.drift, 5),
        valid=not timing.reject,
        reject=timing.reject,
    )
