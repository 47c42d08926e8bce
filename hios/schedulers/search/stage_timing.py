"""The compiled timing of stages: several operators that start together on one device."""

import numpy as np

from hios.schedulers.search.arrays import Floats, Instance, Ints, State
from hios.schedulers.search.compiled import compiled

__all__ = ["time_stages"]


@compiled
def time_stages(
    inst: Instance,
    st: State,
    stage_of: Ints,
    duration: Floats,
    limit: float,
) -> float:
    """Time a state whose nodes are gathered into stages; infinite when above `limit`.

    Parameters
    ----------
    inst, st
        The problem; `State.order` names the nodes of a stage one after another, and
        `State.finish` is overwritten.
    stage_of
        Stage of each node.
    duration
        Time of each stage, µs.
    limit
        Give up as soon as the makespan must exceed this.
    """
    starts, preds, tail, copy_us, occupies = (
        inst.starts,
        inst.preds,
        inst.tail,
        inst.copy_us,
        inst.occupies,
    )
    order, device, finish, free = st.order, st.device, st.finish, st.free
    arrival, is_here, link_free = st.arrival, st.is_here, st.link_free
    n = order.shape[0]
    m = free.shape[0]
    free[:] = 0.0
    link_free[:] = 0.0
    is_here[:] = False
    makespan = 0.0
    i = 0
    while i < n:
        stage = stage_of[order[i]]
        d = device[order[i]]
        ready = 0.0
        behind = i
        while behind < n and stage_of[order[behind]] == stage:
            v = order[behind]
            behind += 1
            for e in range(starts[v, 0], starts[v + 1, 0]):
                u = preds[e, 0]
                if stage_of[u] == stage:
                    continue
                source = device[u]
                if source == d:
                    ready = max(ready, finish[u])
                    continue
                which = preds[e, 1] * m + d
                if not is_here[which]:
                    is_here[which] = True
                    cost = copy_us[preds[e, 1], source * m + d]
                    begin = finish[u]
                    if occupies[d]:
                        begin = max(begin, free[d])
                        free[d] = begin + cost
                    elif inst.is_contended:
                        begin = max(begin, link_free[source * m + d])
                        link_free[source * m + d] = begin + cost
                    arrival[which] = begin + cost
                ready = max(ready, arrival[which])
        now = max(ready, free[d]) + duration[stage]
        free[d] = now
        makespan = max(makespan, now)
        for j in range(i, behind):
            finish[order[j]] = now
            if now + tail[order[j]] > limit:
                return np.inf
        i = behind
    return makespan if makespan <= limit else np.inf
