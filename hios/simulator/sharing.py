"""How operators on different streams of one device slow each other down.

Stages are timed as a whole; a device without stages has no such moments of joint start and
end, so its operators share it like a fluid. While a set R of operators (solo times t) runs,
each of them progresses at the rate 1/s(R). With F(R) the cost of R as a stage of singleton
groups, s is defined by

    s({v}) = 1
    s(R) = s(R∖{v}) + (F(R) − F(R∖{v})) / t_v,   v the shortest of R (last id among equals)

clamped at 1 from below. It is the one slowdown under which a set that starts together has its
last member end exactly at F(R): with t₁ ≥ … ≥ t_k the end is Σ t_j·(s_j − s_{j−1}), which
telescopes to F(R). For equal times s(R) = F(R)/t. Operators that take no time are left out.
"""

from hios.costs.protocol import Costs
from hios.ir.ids import DeviceId, OpId

__all__ = ["Sharing"]


class Sharing:
    """The slowdowns of one device, remembered by running set."""

    def __init__(self, costs: Costs, device: DeviceId) -> None:
        self._costs = costs
        self._device = device
        self._known: dict[tuple[OpId, ...], float] = {}

    def slowdown(self, running: dict[OpId, float]) -> float:
        """Return s(R) ≥ 1.

        Parameters
        ----------
        running
            Solo time in µs, above zero, of each running operator.

        Notes
        -----
        At most |R| questions to the costs, in one batch; none for a set seen before.
        """
        if len(running) < 2:
            return 1.0
        order = tuple(sorted(running, key=lambda op: (-running[op], op)))
        known = self._known.get(order)
        if known is not None:
            return known
        prefixes = [order[:size] for size in range(2, len(order) + 1)]
        together = self._costs.stage_us_many(
            [[(op,) for op in prefix] for prefix in prefixes], self._device
        )
        slowdown, before = 1.0, running[order[0]]
        for prefix, total in zip(prefixes, together, strict=True):
            slowdown += (total - before) / running[prefix[-1]]
            before = total
            self._known[prefix] = max(1.0, slowdown)
        return self._known[order]
