"""Where a graph falls apart into blocks that can be searched one by one.

A single-node cut is an operator that every path from a source to a sink goes through: all
others run either before or after it, so nothing is lost by searching the *blocks* between
such cuts alone (IOS, MLSys 2021, section 4.3). In a topological order an operator is a cut just
when no edge jumps over its position; a virtual source before everything and a virtual sink
behind it are joined to all sources and sinks.

A block may still be too wide to search. `halves` cuts it where the fewest dependencies cross,
which may cost optimality; whoever uses it says so.
"""

from collections.abc import Sequence

__all__ = ["blocks", "crossing", "halves"]


def blocks(preds: Sequence[Sequence[int]]) -> list[range]:
    """Cut a graph at its single-node cuts.

    Parameters
    ----------
    preds
        Predecessors of each position of a topological order.

    Returns
    -------
    list of range
        Consecutive positions, every one once; a cut ends its block.

    Notes
    -----
    O(V + E).

    Examples
    --------
    >>> blocks([[], [0], [0], [1, 2], [3]])
    [range(0, 1), range(1, 4), range(4, 5)]
    """
    n = len(preds)
    # An edge u → v jumps over the positions u + 1 … v − 1; −1 and n are the virtual ends.
    jumps = [0] * (n + 2)
    is_sink = [True] * n

    def jump(u: int, v: int) -> None:
        if v - u > 1:
            jumps[u + 1] += 1
            jumps[v] -= 1

    for v, before in enumerate(preds):
        for u in before:
            jump(u, v)
            is_sink[u] = False
        if not before:
            jump(-1, v)
    for u in range(n):
        if is_sink[u]:
            jump(u, n)
    found, start, over = [], 0, 0
    for position in range(n):
        over += jumps[position]
        if over == 0:
            found.append(range(start, position + 1))
            start = position + 1
    if start < n:
        found.append(range(start, n))
    return found


def crossing(preds: Sequence[Sequence[int]], part: range) -> list[int]:
    """Return how many values of a part are still needed after each of its positions.

    Parameters
    ----------
    preds
        Predecessors of each position of a topological order.
    part
        Consecutive positions; edges that leave it are not counted.

    Returns
    -------
    list of int
        Entry i counts the operators up to ``part[i]`` that a later one of the part reads.
    """
    last_reader = list(part)
    for v in part:
        for u in preds[v]:
            if u in part:
                last_reader[u - part.start] = max(last_reader[u - part.start], v)
    change = [0] * (len(part) + 1)
    for index, reader in enumerate(last_reader):
        change[index] += 1
        change[reader - part.start] -= 1
    counts, alive = [], 0
    for index in range(len(part)):
        alive += change[index]
        counts.append(alive)
    return counts


def halves(preds: Sequence[Sequence[int]], part: range) -> tuple[range, range]:
    """Cut a part of at least two positions in two where the fewest values cross.

    Only the middle half is looked at, so that repeated cutting ends after log n rounds; of
    equal places the one nearest to the middle wins, then the first.

    Examples
    --------
    >>> halves([[], [], [0, 1], [2], [2], [3, 4]], range(6))
    (range(0, 3), range(3, 6))
    """
    n = len(part)
    counts = crossing(preds, part)
    low, high = max(1, n // 4), max(1, n - n // 4 - 1)
    places = range(low, min(high, n - 1) + 1)
    size = min(places, key=lambda k: (counts[k - 1], abs(2 * k - n), k))
    return range(part.start, part.start + size), range(part.start + size, part.stop)
