"""The order in which one host thread issues the lists of a plan.

All lists of a plan advance at once; one thread feeds them, so it needs a single order. Any will
do in which every event is recorded before somebody waits for it: CUDA takes a wait for an event
that was never recorded as no wait at all. The lists take turns, so that each stream gets work
early.
"""

from graph_executor.plan import Copy, Launch, Plan, Record, Wait
from hios.errors import InvalidPlan

__all__ = ["issue_order"]


def issue_order(plan: Plan) -> tuple[tuple[int, int], ...]:
    """Return (list, place) of every instruction, each list in its own order.

    Parameters
    ----------
    plan
        Whose lists.

    Raises
    ------
    InvalidPlan
        When the lists wait for each other for ever.

    Notes
    -----
    In its turn a list issues up to its next launch or copy, and the records behind it.
    """
    queues = plan.queues
    position = [0] * len(queues)
    recorded: set[int] = set()
    order: list[tuple[int, int]] = []
    total = sum(len(queue.instructions) for queue in queues)
    while len(order) < total:
        before = len(order)
        for number, queue in enumerate(queues):
            has_acted = False
            while position[number] < len(queue.instructions):
                instruction = queue.instructions[position[number]]
                if isinstance(instruction, Wait) and (
                    has_acted or instruction.event not in recorded
                ):
                    break
                if isinstance(instruction, Launch | Copy):
                    if has_acted:
                        break
                    has_acted = True
                elif isinstance(instruction, Record):
                    recorded.add(instruction.event)
                order.append((number, position[number]))
                position[number] += 1
        if len(order) == before:
            raise InvalidPlan(
                f"plan of {plan.graph!r} deadlocks with {total - before} instructions left; "
                "validate it"
            )
    return tuple(order)
