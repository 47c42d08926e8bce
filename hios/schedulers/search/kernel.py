"""The compiled inner loop of the search: simulated annealing over order and device.

A state is a topological order of all nodes and a device for each; it is timed as a list schedule,
so every state is a valid one-stream schedule. A move shifts one operator within the window that
its neighbours leave it, sends it (and sometimes neighbours of it) to another device, or swaps two
operators of different devices. Half of the time the operator is drawn from the critical path.

Re-timing is incremental. It starts at the first position that a move touches, stops as soon as
times coincide with the old ones again, and is abandoned when an operator's finish plus the
longest path behind it exceeds what annealing would accept (the threshold is drawn first). Where
copies queue on links or occupy their destination, a state is re-timed from its beginning.

Only additions, comparisons and one product are done on times, so results do not depend on the
machine. All that calls each other stands in this one file: what is compiled is kept on disk until
its file changes.
"""

import numpy as np

from hios.schedulers.search.arrays import (
    ACCEPTED,
    BEST,
    EVALUATIONS,
    MAKESPAN,
    N_CRITICAL,
    TEMPERATURE,
    Flags,
    Floats,
    Instance,
    Ints,
    State,
    Words,
)
from hios.schedulers.search.compiled import compiled

__all__ = ["COOLING_STEP", "anneal", "evaluate"]

# Probabilities of the moves, in 1/1024.
_CRITICAL = 512
_SWAP = 256
_CHANGE_DEVICE = 717
_TOWARDS_NEIGHBOUR = 307
_TAKE_ALONG = 307
# A swap looks for its partner within this many positions.
_SWAP_REACH = 16
_MAX_SHIFTS = 4
# Evaluations between two steps of the temperature.
COOLING_STEP = 256


# The functions below take single arrays, not tuples of them: each array taken out of a tuple
# costs compiled code two atomic operations.


@compiled
def _random(word: Words) -> int:
    """Advance xorshift64 and return 53 random bits."""
    x = word[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    word[0] = x
    return int(np.int64(x >> np.uint64(11)))


@compiled
def _below(word: Words, limit: int) -> int:
    """Return a random integer in [0, limit)."""
    return _random(word) % limit


@compiled
def _chance(word: Words, in_1024: int) -> bool:
    return (_random(word) & 1023) < in_1024


@compiled
def _shift(order: Ints, position: Ints, old: int, new: int) -> None:
    """Move the node at position `old` to `new`; those between close up."""
    v = order[old]
    if new > old:
        for i in range(old, new):
            w = order[i + 1]
            order[i] = w
            position[w] = i
    else:
        for i in range(old, new, -1):
            w = order[i - 1]
            order[i] = w
            position[w] = i
    order[new] = v
    position[v] = new


@compiled
def _window(starts: Ints, preds: Ints, succs: Ints, position: Ints, v: int) -> tuple[int, int]:
    """Return the first and last position that v may have while the others keep their order."""
    low, high = 0, position.shape[0] - 1
    for e in range(starts[v, 0], starts[v + 1, 0]):
        low = max(low, position[preds[e, 0]] + 1)
    for e in range(starts[v, 1], starts[v + 1, 1]):
        high = min(high, position[succs[e]] - 1)
    return low, high


@compiled
def _neighbour(starts: Ints, preds: Ints, succs: Ints, word: Words, v: int) -> int:
    """Return a random predecessor or successor of v, or −1."""
    n_preds = starts[v + 1, 0] - starts[v, 0]
    n_succs = starts[v + 1, 1] - starts[v, 1]
    if n_preds + n_succs == 0:
        return -1
    j = _below(word, n_preds + n_succs)
    if j < n_preds:
        return int(preds[starts[v, 0] + j, 0])
    return int(succs[starts[v, 1] + j - n_preds])


@compiled
def _time_from(
    starts: Ints,
    preds: Ints,
    succs: Ints,
    time: Floats,
    tail: Floats,
    copy_us: Floats,
    order: Ints,
    position: Ints,
    device: Ints,
    finish: Floats,
    old_finish: Floats,
    free: Floats,
    known: Flags,
    touched: Flags,
    dirty: Flags,
    first: int,
    last: int,
    reach: int,
    before: float,
    limit: float,
) -> tuple[bool, float, int]:
    """Re-time from position `first` on.

    All that moved lies in [first, last], readers of what changed its device up to `reach`,
    `touched` names the devices whose sequence changed, and `before` is the old makespan. Returns
    whether the makespan is at most `limit`, the makespan, and where re-timing stopped.
    """
    n = order.shape[0]
    m = free.shape[0]
    n_dirty = 0
    for d in range(m):
        free[d] = 0.0
        known[d] = False
        dirty[d] = touched[d]
        if touched[d]:
            n_dirty += 1
    n_known = 0
    i = first - 1
    while i >= 0 and n_known < m:
        v = order[i]
        d = device[v]
        if not known[d]:
            known[d] = True
            free[d] = finish[v]
            n_known += 1
        i -= 1
    reach = max(reach, last)
    for i in range(first, n):
        v = order[i]
        d = device[v]
        now = free[d]
        for e in range(starts[v, 0], starts[v + 1, 0]):
            u = preds[e, 0]
            ready = finish[u]
            if device[u] != d:
                ready += copy_us[preds[e, 1], device[u] * m + d]
            if ready > now:
                now = ready
        now += time[v, d]
        free[d] = now
        old = finish[v]
        old_finish[i] = old
        finish[v] = now
        if now + tail[v] > limit:
            return False, now, i + 1
        if now != old:
            for e in range(starts[v, 1], starts[v + 1, 1]):
                if position[succs[e]] > reach:
                    reach = position[succs[e]]
            if not dirty[d]:
                dirty[d] = True
                n_dirty += 1
        elif dirty[d] and (i > last or not touched[d]):
            # From here on this device goes on as before.
            dirty[d] = False
            n_dirty -= 1
        if n_dirty == 0 and i >= reach:
            return True, before, i + 1
    makespan = 0.0
    for d in range(m):
        makespan = max(makespan, free[d])
    return makespan <= limit, makespan, n


@compiled
def _time_all(
    starts: Ints,
    preds: Ints,
    time: Floats,
    tail: Floats,
    copy_us: Floats,
    occupies: Flags,
    is_contended: bool,
    order: Ints,
    device: Ints,
    finish: Floats,
    old_finish: Floats,
    free: Floats,
    arrival: Floats,
    is_here: Flags,
    link_free: Floats,
    limit: float,
) -> tuple[bool, float, int]:
    """Re-time everything, with copies that queue on links or occupy their destination.

    Copies are served in the order of their first readers; of one reader in the order in which
    `preds` names them.
    """
    n = order.shape[0]
    m = free.shape[0]
    free[:] = 0.0
    link_free[:] = 0.0
    is_here[:] = False
    makespan = 0.0
    for i in range(n):
        v = order[i]
        d = device[v]
        ready = 0.0
        for e in range(starts[v, 0], starts[v + 1, 0]):
            u = preds[e, 0]
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
                elif is_contended:
                    begin = max(begin, link_free[source * m + d])
                    link_free[source * m + d] = begin + cost
                arrival[which] = begin + cost
            ready = max(ready, arrival[which])
        now = max(ready, free[d]) + time[v, d]
        free[d] = now
        old_finish[i] = finish[v]
        finish[v] = now
        makespan = max(makespan, now)
        if now + tail[v] > limit:
            return False, now, i + 1
    return makespan <= limit, makespan, n


@compiled
def evaluate(inst: Instance, st: State) -> float:
    """Time the current state and return its makespan in µs."""
    if inst.is_simple:
        st.touched[:] = True
        return _time_from(
            inst.starts,
            inst.preds,
            inst.succs,
            inst.time,
            inst.tail,
            inst.copy_us,
            st.order,
            st.position,
            st.device,
            st.finish,
            st.old_finish,
            st.free,
            st.known,
            st.touched,
            st.dirty,
            0,
            st.order.shape[0],
            0,
            0.0,
            np.inf,
        )[1]
    return _time_all(
        inst.starts,
        inst.preds,
        inst.time,
        inst.tail,
        inst.copy_us,
        inst.occupies,
        inst.is_contended,
        st.order,
        st.device,
        st.finish,
        st.old_finish,
        st.free,
        st.arrival,
        st.is_here,
        st.link_free,
        np.inf,
    )[1]


@compiled
def _trace(inst: Instance, st: State) -> None:
    """Follow what the last finish waited for back to the beginning."""
    starts, preds, time, copy_us = inst.starts, inst.preds, inst.time, inst.copy_us
    order, position, device, finish = st.order, st.position, st.device, st.finish
    critical = st.critical
    m = time.shape[1]
    slack = 1e-9 * st.scalars[MAKESPAN]
    first, end = inst.first_movable, inst.first_movable + inst.n_movable
    count = 0
    v = order[0]
    for i in range(order.shape[0]):
        if finish[order[i]] > finish[v]:
            v = order[i]
    while v >= 0:
        if first <= v < end:
            critical[count] = v
            count += 1
        d = device[v]
        start = finish[v] - time[v, d]
        latest, by_data = -1.0, -1
        for e in range(starts[v, 0], starts[v + 1, 0]):
            u = preds[e, 0]
            ready = finish[u]
            if device[u] != d:
                ready += copy_us[preds[e, 1], device[u] * m + d]
            if ready > latest:
                latest, by_data = ready, u
        i = position[v] - 1
        while i >= 0 and device[order[i]] != d:
            i -= 1
        by_device = order[i] if i >= 0 else -1
        if by_data >= 0 and (
            latest >= start - slack or by_device < 0 or finish[by_device] < start - slack
        ):
            v = by_data
        elif start <= slack:
            v = -1
        else:
            v = by_device
    st.counters[N_CRITICAL] = count


@compiled
def _record(
    order: Ints, position: Ints, device: Ints, shifts: Ints, index: int, v: int, new: int, to: int
) -> None:
    """Apply one shift and one device, and remember how to take them back."""
    shifts[index, 0] = v
    shifts[index, 1] = position[v]
    shifts[index, 2] = new
    shifts[index, 3] = device[v]
    _shift(order, position, position[v], new)
    device[v] = to


@compiled
def anneal(inst: Instance, st: State, evaluations: int, cooling: float, target: float) -> None:
    """Go on annealing from the current state.

    Parameters
    ----------
    inst, st
        The problem, and a state whose times are those of `evaluate`.
    evaluations
        How many moves to try; a move that changes nothing counts.
    cooling
        Factor of the temperature every 256 evaluations.
    target
        Stop at this makespan.
    """
    starts, preds, succs, time, tail = inst.starts, inst.preds, inst.succs, inst.time, inst.tail
    copy_us, occupies, draws = inst.copy_us, inst.occupies, inst.draws
    is_contended, is_simple = inst.is_contended, inst.is_simple
    first_movable, n_movable = inst.first_movable, inst.n_movable
    order, position, device, finish = st.order, st.position, st.device, st.finish
    best_order, best_device, critical, shifts = (
        st.best_order,
        st.best_device,
        st.critical,
        st.shifts,
    )
    old_finish, free, known, touched, dirty = st.old_finish, st.free, st.known, st.touched, st.dirty
    arrival, is_here, link_free = st.arrival, st.is_here, st.link_free
    scalars, counters, word = st.scalars, st.counters, st.random
    n = order.shape[0]
    m = free.shape[0]
    end_movable = first_movable + n_movable
    until = counters[EVALUATIONS] + evaluations
    while counters[EVALUATIONS] < until and scalars[BEST] > target:
        if counters[EVALUATIONS] % COOLING_STEP == 0:
            scalars[TEMPERATURE] *= cooling
        counters[EVALUATIONS] += 1

        v = first_movable + _below(word, n_movable)
        if _chance(word, _CRITICAL):
            if counters[N_CRITICAL] < 0:
                _trace(inst, st)
            if counters[N_CRITICAL] > 0:
                v = critical[_below(word, counters[N_CRITICAL])]
        here, old_device = position[v], device[v]
        low, high = _window(starts, preds, succs, position, v)
        n_shifts = 0
        if m > 1 and _chance(word, _SWAP):
            # Exchange device and place with a near operator of another device.
            w = -1
            for _ in range(8):
                j = here - _SWAP_REACH + _below(word, 2 * _SWAP_REACH + 1)
                if 0 <= j < n and device[order[j]] != old_device:
                    w = order[j]
                    break
            if w < first_movable or w >= end_movable:
                continue
            other = device[w]
            _record(order, position, device, shifts, 0, v, min(max(position[w], low), high), other)
            low, high = _window(starts, preds, succs, position, w)
            _record(order, position, device, shifts, 1, w, min(max(here, low), high), old_device)
            n_shifts = 2
        else:
            new_device = old_device
            if m > 1 and _chance(word, _CHANGE_DEVICE):
                if _chance(word, _TOWARDS_NEIGHBOUR):
                    w = _neighbour(starts, preds, succs, word, v)
                    if w >= 0:
                        new_device = device[w]
                if new_device == old_device:
                    new_device = _below(word, m - 1)
                    if new_device >= old_device:
                        new_device += 1
            there = low + _below(word, high - low + 1)
            if new_device == old_device:
                # A shift past operators of other devices alone would change nothing.
                is_idle = True
                for j in range(min(here, there), max(here, there) + 1):
                    if j != here and device[order[j]] == old_device:
                        is_idle = False
                        break
                if is_idle:
                    continue
            _record(order, position, device, shifts, 0, v, there, new_device)
            n_shifts = 1
            while (
                new_device != old_device and n_shifts < _MAX_SHIFTS and _chance(word, _TAKE_ALONG)
            ):
                w = _neighbour(starts, preds, succs, word, shifts[n_shifts - 1, 0])
                if w < first_movable or w >= end_movable or device[w] != old_device:
                    break
                low, high = _window(starts, preds, succs, position, w)
                there = low + _below(word, high - low + 1)
                _record(order, position, device, shifts, n_shifts, w, there, new_device)
                n_shifts += 1

        draw = draws[_random(word) & (draws.shape[0] - 1)]
        limit = scalars[MAKESPAN] + scalars[TEMPERATURE] * draw
        first = 0
        if is_simple:
            first, last, reach = n, 0, 0
            touched[:] = False
            for q in range(n_shifts):
                v = shifts[q, 0]
                first = min(first, min(shifts[q, 1], shifts[q, 2]))
                last = max(last, max(shifts[q, 1], shifts[q, 2]))
                touched[shifts[q, 3]] = True
                touched[device[v]] = True
                for e in range(starts[v, 1], starts[v + 1, 1]):
                    reach = max(reach, position[succs[e]])
            is_accepted, makespan, stop = _time_from(
                starts,
                preds,
                succs,
                time,
                tail,
                copy_us,
                order,
                position,
                device,
                finish,
                old_finish,
                free,
                known,
                touched,
                dirty,
                first,
                last,
                reach,
                scalars[MAKESPAN],
                limit,
            )
        else:
            is_accepted, makespan, stop = _time_all(
                starts,
                preds,
                time,
                tail,
                copy_us,
                occupies,
                is_contended,
                order,
                device,
                finish,
                old_finish,
                free,
                arrival,
                is_here,
                link_free,
                limit,
            )
        if is_accepted:
            counters[ACCEPTED] += 1
            counters[N_CRITICAL] = -1
            scalars[MAKESPAN] = makespan
            if makespan < scalars[BEST]:
                scalars[BEST] = makespan
                best_order[:] = order
                best_device[:] = device
            continue
        for i in range(first, stop):
            finish[order[i]] = old_finish[i]
        for q in range(n_shifts - 1, -1, -1):
            _shift(order, position, shifts[q, 2], shifts[q, 1])
            device[shifts[q, 0]] = shifts[q, 3]
