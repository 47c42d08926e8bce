"""Every ending of every state of a block, over bitmasks.

A *state* S is a set of operators that contains all predecessors of its members. An *ending* S'
of S has no edge from S' to S∖S'. Its *groups* are its weakly connected components (IOS, MLSys
2021, section 4.2). A component of an ending is itself an ending of S, so the endings of at most
s groups of at most r operators are just the unions of at most s *pieces* that do not touch,
a piece being a connected ending of at most r operators.

Up-closed sets are grown one operator at a time in descending topological order; each prefix is
up-closed again, so none is missed and none is met twice. (Unions of descendant cones, as the
published code takes them, miss connected endings with several heads.)
"""

from collections.abc import Iterator, Sequence

__all__ = ["Endings", "n_states", "positions"]


class Endings:
    """The endings of a block's states.

    Parameters
    ----------
    succs
        Successors of each position 0 … n − 1 within the block; positions are topological.
    r
        Most operators in a group.
    s
        Most groups in an ending.
    """

    def __init__(self, succs: Sequence[Sequence[int]], r: int, s: int) -> None:
        n = len(succs)
        self.full = (1 << n) - 1
        self.succ = [sum(1 << w for w in after) for after in succs]
        self.pred = [0] * n
        for u, after in enumerate(succs):
            for v in after:
                self.pred[v] |= 1 << u
        self.r = r
        self.s = s
        # What a piece touches: itself and its neighbours; None marks a disconnected set.
        self._reach: dict[int, int | None] = {}

    def sinks(self, state: int) -> int:
        """Return the members of a state that no other member needs, as a mask."""
        found = 0
        for v in positions(state):
            if not self.succ[v] & state:
                found |= 1 << v
        return found

    def sinks_without(self, left: int, sinks: int, ending: int) -> int:
        """Return the sinks of a state without one of its endings.

        Parameters
        ----------
        left
            The state without the ending.
        sinks
            Those of the state.
        ending
            What was taken out.

        Notes
        -----
        Looks only at what the ending reads, not at the whole state.
        """
        found = sinks & left
        freed = 0
        for v in positions(ending):
            freed |= self.pred[v]
        for u in positions(freed & left):
            if not self.succ[u] & left:
                found |= 1 << u
        return found

    def pieces(self, state: int, sinks: int) -> list[int]:
        """Return the connected endings of at most r operators, as masks.

        Notes
        -----
        O(m) steps for the m endings of at most r operators, connected or not.
        """
        succ, pred, r = self.succ, self.pred, self.r
        found = []
        # (set so far, operators that may still join it: each below all of its members)
        stack = [(0, tuple(sorted(positions(sinks), reverse=True)))]
        while stack:
            grown, choices = stack.pop()
            for index, v in enumerate(choices):
                larger = grown | (1 << v)
                if self._touched(larger) is not None:
                    found.append(larger)
                if larger.bit_count() < r:
                    later = [c for c in choices[index + 1 :] if c < v]
                    freed = pred[v]
                    while freed:
                        u = freed.bit_length() - 1
                        freed ^= 1 << u
                        if not succ[u] & state & ~larger:
                            later.append(u)
                    if later:
                        later.sort(reverse=True)
                        stack.append((larger, tuple(later)))
        found.sort()
        return found

    def of(self, state: int, sinks: int | None = None) -> list[int]:
        """Return all endings of a state that keep to r and s, each once, as masks.

        Parameters
        ----------
        state
            Contains all predecessors of its members.
        sinks
            Those of the state, when they are known.
        """
        pieces = self.pieces(state, self.sinks(state) if sinks is None else sinks)
        # friends[i]: the later pieces that do not touch piece i, as a mask over pieces.
        friends = []
        for index, piece in enumerate(pieces):
            touched = self._reach[piece] or 0
            mask = 0
            for later in range(index + 1, len(pieces)):
                if not pieces[later] & touched:
                    mask |= 1 << later
            friends.append(mask)
        found: list[int] = list(pieces)
        stack = [(piece, friends[i], 1) for i, piece in enumerate(pieces) if friends[i]]
        s = self.s
        if s < 2:
            return found
        while stack:
            union, allowed, count = stack.pop()
            count += 1
            while allowed:
                lowest = allowed & -allowed
                allowed ^= lowest
                index = lowest.bit_length() - 1
                larger = union | pieces[index]
                found.append(larger)
                if count < s:
                    still = allowed & friends[index]
                    if still:
                        stack.append((larger, still, count))
        return found

    def groups(self, ending: int) -> list[int]:
        """Return the weakly connected components of a set, by their lowest position."""
        found = []
        while ending:
            group = ending & -ending
            border = group
            while border:
                v = border.bit_length() - 1
                border ^= 1 << v
                new = (self.succ[v] | self.pred[v]) & ending & ~group
                group |= new
                border |= new
            found.append(group)
            ending ^= group
        return found

    def is_ending(self, candidate: int, state: int) -> bool:
        """Return whether `candidate` is an ending of `state`, however large."""
        if candidate & state != candidate:
            return False
        left = state & ~candidate
        return not any(self.succ[v] & left for v in positions(candidate))

    def _touched(self, members: int) -> int | None:
        """Return a connected set with its neighbours; None when it is not connected."""
        if members in self._reach:
            return self._reach[members]
        around: int | None = None
        if len(self.groups(members)) == 1:
            around = members
            for v in positions(members):
                around |= self.succ[v] | self.pred[v]
        self._reach[members] = around
        return around


def positions(mask: int) -> Iterator[int]:
    """Yield the members of a bitmask, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def n_states(succs: Sequence[Sequence[int]], most: int) -> int:
    """Count the states of a block, giving up above `most`.

    Parameters
    ----------
    succs
        As for `Endings`.
    most
        Where to stop.

    Returns
    -------
    int
        The number of states, the empty one included, or ``most + 1``.

    Notes
    -----
    O(most · d) steps for d operators that may run at once.
    """
    one = Endings(succs, 1, 1)
    level = {one.full: one.sinks(one.full)}
    count = 0
    while level:
        count += len(level)
        if count > most:
            return most + 1
        below: dict[int, int] = {}
        for state, sinks in level.items():
            for v in positions(sinks):
                left = state ^ (1 << v)
                if left not in below:
                    below[left] = one.sinks_without(left, sinks, 1 << v)
            if count + len(below) > most:
                return most + 1
        level = below
    return count
