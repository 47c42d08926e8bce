"""The order that a log of CUDA calls promises, recomputed from the log alone.

Each stream is a list in order; a wait adds everything that its event had seen when it was last
recorded. Shares no code with the backend, the planner, or the model driver.
"""

from collections.abc import Sequence

from cuda_model import Call


def promised_order(calls: Sequence[Call]) -> list[tuple[Call, frozenset[int]]]:
    """Return launches and copies in the order issued, each with the indices of those before it."""
    seen: dict[int, frozenset[int]] = {}
    stored: dict[int, frozenset[int]] = {}
    actions: list[tuple[Call, frozenset[int]]] = []
    for call in calls:
        past = seen.get(call.stream, frozenset())
        if call.name == "record":
            stored[call.event] = past
        elif call.name == "wait":
            seen[call.stream] = past | stored[call.event]
        elif call.name in ("launch", "copy"):
            actions.append((call, past))
            seen[call.stream] = past | {len(actions) - 1}
    return actions
