"""An independent, slow simulator: the rules of `hios.ir.schedule`, read literally.

Nothing of `hios.simulator` (nor `required_copies`) is used. There are no queues and no
dependency counts: at every moment all activities that have not begun are asked whether they
may begin, until none may; then time advances to the next end.
"""

from dataclasses import dataclass, field

EPSILON = 1e-9


@dataclass
class Activity:
    kind: str  # operator, stage or copy
    label: tuple
    device: int
    left: float
    ops: list = field(default_factory=list)
    stream: int = 0
    stage: int = -1
    tensor: int = -1
    src: int = -1
    begun: float | None = None
    ended: float | None = None


class ReferenceSimulator:
    def __init__(self, graph, machine, costs, schedule):
        self.graph, self.machine, self.costs, self.schedule = graph, machine, costs, schedule
        self.at = {p.op: p for p in schedule.placements}
        self.place = {p.op: i for i, p in enumerate(schedule.placements)}
        self.activities = []
        self.of_op = {}
        for p in schedule.placements:
            if p.stage is None:
                solo = costs.operator_us(p.op, p.device)
                one = Activity("operator", ("op", p.op), p.device, solo, [p.op], p.stream)
                self.activities.append(one)
            else:
                one = self._stage_of(p)
                one.ops.append(p.op)
            self.of_op[p.op] = one
        for one in self.activities:
            if one.kind == "stage":
                groups = {}
                for op in one.ops:
                    groups.setdefault(self.at[op].stream, []).append(op)
                one.left = costs.stage_us(list(groups.values()), one.device)
        self.copies = {}
        self._make_copies()

    def _stage_of(self, p):
        for one in self.activities:
            if one.kind == "stage" and (one.device, one.stage) == (p.device, p.stage):
                return one
        one = Activity("stage", ("stage", p.device, p.stage), p.device, 0.0, stage=p.stage)
        self.activities.append(one)
        return one

    def _make_copies(self):
        graph = self.graph
        wanted = set()
        for op in graph.operators:
            wanted |= {(graph.root(t), self.at[op.id].device) for t in op.inputs}
        wanted |= {(graph.root(t), 0) for t in graph.outputs}
        for tensor, dst in sorted(wanted):
            producer = graph.tensors[tensor].producer
            if producer is None and tensor not in graph.inputs:
                continue
            src = 0 if producer is None else self.at[producer].device
            if src != dst:
                time = self.costs.transfer_us(tensor, src, dst)
                one = Activity("copy", ("copy", tensor, dst), dst, time, tensor=tensor, src=src)
                self.copies[tensor, dst] = one
                self.activities.append(one)

    def is_present(self, tensor, device):
        if (tensor, device) in self.copies:
            return self.copies[tensor, device].ended is not None
        producer = self.graph.tensors[tensor].producer
        return producer is None or self.of_op[producer].ended is not None

    def readers(self, copy):
        """Operators on the destination that read the tensor, in issue order."""
        found = [
            op.id
            for op in self.graph.operators
            if self.at[op.id].device == copy.device
            and copy.tensor in {self.graph.root(t) for t in op.inputs}
        ]
        return sorted(found, key=self.place.__getitem__)

    def link_place(self, copy):
        for link in self.schedule.links:
            if (link.src, link.dst) == (copy.src, copy.device):
                return link.tensors.index(copy.tensor)
        raise AssertionError("the link is not decided")

    def brought_by(self, one):
        """Copies that occupy the device right before this stage or operator, in order."""
        if not self.machine.copies_occupy(one.device):
            return []
        found = []
        for copy in self.copies.values():
            if copy.device == one.device:
                readers = self.readers(copy)
                if readers and self.of_op[readers[0]] is one:
                    found.append(copy)
        return sorted(found, key=lambda c: (self.link_place(c), c.src))

    def before_in_lane(self, one):
        """Stages or operators that stand before this one on its device (or stream)."""
        others = [o for o in self.activities if o.kind != "copy" and o.device == one.device]
        if one.kind == "stage":
            return [o for o in others if o.stage < one.stage]
        return [
            o
            for o in others
            if o.stream == one.stream and self.place[o.ops[0]] < self.place[one.ops[0]]
        ]

    def may_begin(self, one):
        if one.kind == "copy":
            return self.may_copy(one)
        inside = set(one.ops)
        for op in one.ops:
            for tensor in {self.graph.root(t) for t in self.graph.operators[op].inputs}:
                if self.graph.tensors[tensor].producer in inside:
                    continue
                if not self.is_present(tensor, one.device):
                    return False
        return all(o.ended is not None for o in self.before_in_lane(one)) and all(
            c.ended is not None for c in self.brought_by(one)
        )

    def may_copy(self, copy):
        if not self.is_present(copy.tensor, copy.src):
            return False
        if self.machine.copies_occupy(copy.device):
            readers = self.readers(copy)
            if readers:
                bringer = self.of_op[readers[0]]
                before = self.brought_by(bringer)
                before = before[: before.index(copy)] + self.before_in_lane(bringer)
            else:
                before = [o for o in self.activities if o.device == 0 and o is not copy]
                before = [
                    o
                    for o in before
                    if o.kind != "copy"
                    or self.readers(o)
                    or (self.link_place(o), o.src) < (self.link_place(copy), copy.src)
                ]
            return all(o.ended is not None for o in before)
        if self.machine.is_contended:
            place = self.link_place(copy)
            return all(
                c.ended is not None
                for c in self.copies.values()
                if (c.src, c.device) == (copy.src, copy.device) and self.link_place(c) < place
            )
        return True

    def slowdown(self, device):
        running = [
            o
            for o in self.activities
            if o.kind == "operator"
            and o.device == device
            and o.begun is not None
            and o.ended is None
            and self.costs.operator_us(o.ops[0], device) > 0
        ]
        ops = [o.ops[0] for o in running]
        return max(1.0, self._slowdown_of(ops, device))

    def _slowdown_of(self, ops, device):
        if len(ops) < 2:
            return 1.0
        solo = {op: self.costs.operator_us(op, device) for op in ops}
        shortest = min(ops, key=lambda op: (solo[op], -op))
        rest = [op for op in ops if op != shortest]
        both = self.costs.stage_us([[op] for op in ops], device)
        without = self.costs.stage_us([[op] for op in rest], device)
        return self._slowdown_of(rest, device) + (both - without) / solo[shortest]

    def run(self):
        now = 0.0
        while True:
            has_begun = True
            while has_begun:
                has_begun = False
                for one in self.activities:
                    if one.begun is None and self.may_begin(one):
                        one.begun = now
                        has_begun = True
                        if one.left <= EPSILON:
                            one.ended = now
            running = [o for o in self.activities if o.begun is not None and o.ended is None]
            if not running:
                break
            rate = {
                id(o): 1.0 / self.slowdown(o.device) if o.kind == "operator" else 1.0
                for o in running
            }
            step = min(o.left / rate[id(o)] for o in running)
            now += step
            for o in running:
                o.left -= step * rate[id(o)]
                if o.left <= EPSILON:
                    o.ended = now
        assert all(o.ended is not None for o in self.activities), "a deadlock"
        return now


def reference_makespan(graph, machine, costs, schedule):
    """Return the makespan in µs; the schedule needs its links decided."""
    return ReferenceSimulator(graph, machine, costs, schedule).run()
