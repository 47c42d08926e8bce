"""Maximum bipartite matching (Hopcroft and Karp, 1973), without recursion.

networkx has the same algorithm, but follows augmenting paths by recursion, which a deep graph
exhausts. Vertices are tried in ascending order, so the result is deterministic.
"""

from collections.abc import Sequence

__all__ = ["chains_of_matching", "maximum_matching"]

_FREE = -1


def maximum_matching(neighbours: Sequence[Sequence[int]], n_right: int) -> list[int]:
    """Match as many left vertices as possible, each with one right vertex of its own.

    Parameters
    ----------
    neighbours
        Right vertices that each left vertex may be matched with.
    n_right
        Number of right vertices.

    Returns
    -------
    list of int
        Partner of each left vertex; −1 where it has none.

    Notes
    -----
    O(E·√V).

    Examples
    --------
    >>> maximum_matching([[0, 1], [0]], 2)
    [1, 0]
    """
    n_left = len(neighbours)
    right_of = [_FREE] * n_left
    left_of = [_FREE] * n_right
    # The simple matches first: most of a network is chains.
    for u in range(n_left):
        for v in neighbours[u]:
            if left_of[v] == _FREE:
                right_of[u], left_of[v] = v, u
                break
    while (layer := _layers(neighbours, right_of, left_of)) is not None:
        next_edge = [0] * n_left
        for root in range(n_left):
            if right_of[root] == _FREE:
                _augment(root, neighbours, right_of, left_of, layer, next_edge)
    return right_of


def chains_of_matching(partner: Sequence[int]) -> list[list[int]]:
    """Follow matched edges u → partner[u] to chains that cover every vertex once.

    Parameters
    ----------
    partner
        From `maximum_matching` of a DAG's vertices with themselves.

    Returns
    -------
    list of list of int
        By their first vertex.

    Examples
    --------
    >>> chains_of_matching([2, -1, -1])
    [[0, 2], [1]]
    """
    followed = set(partner)
    chains = []
    for head in range(len(partner)):
        if head not in followed:
            chain = [head]
            while partner[chain[-1]] != _FREE:
                chain.append(partner[chain[-1]])
            chains.append(chain)
    return chains


def _layers(
    neighbours: Sequence[Sequence[int]], right_of: list[int], left_of: list[int]
) -> list[int] | None:
    """Return the distance of each left vertex from a free one; None without augmenting path."""
    layer = [0 if right == _FREE else _FREE for right in right_of]
    level = [u for u, right in enumerate(right_of) if right == _FREE]
    is_found = False
    while level and not is_found:
        following = []
        for u in level:
            for v in neighbours[u]:
                w = left_of[v]
                if w == _FREE:
                    is_found = True
                elif layer[w] == _FREE:
                    layer[w] = layer[u] + 1
                    following.append(w)
        level = following
    return layer if is_found else None


def _augment(
    root: int,
    neighbours: Sequence[Sequence[int]],
    right_of: list[int],
    left_of: list[int],
    layer: list[int],
    next_edge: list[int],
) -> None:
    """Search one augmenting path along the layers, and swap its edges."""
    path = [root]
    while path:
        u = path[-1]
        if next_edge[u] == len(neighbours[u]):
            path.pop()
            continue
        v = neighbours[u][next_edge[u]]
        next_edge[u] += 1
        w = left_of[v]
        if w == _FREE:
            # Each vertex on the path gives its partner to the one before it.
            for x in reversed(path):
                before = right_of[x]
                right_of[x], left_of[v] = v, x
                v = before
            return
        if layer[w] == layer[u] + 1:
            path.append(w)
