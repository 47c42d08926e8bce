"""Records of groups that nobody measured: a small machine whose physics are known.

Each operator needs some compute and some memory traffic. On one core it computes at the core's
rate; on several it splits, with a serial part. Chains that run together share the bandwidth, and
lose a little to each other's working set once both no longer fit the cache. Noise is
multiplicative. Learning has something to find, and a test knows what.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cost_model.records import (
    SCHEMA,
    GroupRecord,
    OperatorRecord,
    Source,
    Spread,
    group_id,
)
from graph_executor.timed_device import TimedDevice

HOST = TimedDevice("Synthetic CPU", "cpu", "", 2, 3000, 20.0, 80.0, 16 << 20)

KINDS = ("conv2d", "depthwise", "pool", "elementwise", "dense")


def operators(count: int, seed: int) -> list[OperatorRecord]:
    """Return distinct operators with solo times on two cores and on one."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        side, channels = int(rng.choice([7, 14, 28, 56])), int(rng.choice([16, 32, 64, 128]))
        size = side * side * channels * 4
        taps = {"conv2d": 9 * channels, "depthwise": 9, "pool": 9, "dense": channels}.get(kind, 1)
        flops = 2.0 * side * side * channels * taps
        narrow = max(flops / 4e4, 2 * size / 1e4) + 1.0
        serial = float(rng.uniform(0.02, 0.5))
        wide = narrow * (serial + (1 - serial) / 2) + 1.5
        made.append(
            OperatorRecord(
                key=f"{seed:04x}{index:012x}|1|{side}x{side}x{channels}:float32",
                stream=0,
                position=0,
                kind=kind,
                dtype="float32",
                inputs=((1, channels, side, side),),
                outputs=((1, channels, side, side),),
                flops=flops,
                bytes_read=size,
                bytes_written=size,
                launch={"parallel_extent": side},
                solo_us=_spread(wide),
                narrow_us=_spread(narrow),
            )
        )
    return made


def group_time_us(chains: Sequence[Sequence[OperatorRecord]], noise: float = 0.0) -> float:
    """Return what the chains take together."""
    narrow = [sum(op.narrow_us.p50 for op in chain if op.narrow_us) for chain in chains]
    wide = [sum(op.solo_us.p50 for op in chain if op.solo_us) for chain in chains]
    if len(chains) == 1:
        return wide[0] * float(np.exp(noise))
    traffic = sum(op.bytes_read + op.bytes_written for chain in chains for op in chain)
    crowded = 1.0 + 0.25 * min(1.0, traffic / HOST.cache_bytes)
    time = max(max(narrow), sum(narrow) / HOST.units, max(wide)) * crowded + 2.0
    return max(time * float(np.exp(noise)), max(wide))


def record(
    chains: Sequence[Sequence[OperatorRecord]], model: str = "synthetic", noise: float = 0.0
) -> GroupRecord:
    """Return the record of a group."""
    ops = tuple(
        replace(op, stream=stream, position=position)
        for stream, chain in enumerate(chains)
        for position, op in enumerate(chain)
    )
    serial = sum(op.solo_us.p50 for op in ops if op.solo_us)
    return GroupRecord(
        schema=SCHEMA,
        group_id=group_id(ops, (), "eager", "warm"),
        ops=ops,
        streams=len(chains),
        order=(),
        widths=(1,) * len(chains) if len(chains) > 1 else (HOST.units,),
        mode="eager",
        cache="warm",
        serial_us=_spread(serial),
        group_us=_spread(group_time_us(chains, noise)),
        device=HOST,
        target='{"kind":"llvm"}',
        env={"tvm": "0.27.0"},
        source=Source(model),
        date="2026-11-26T16:00:00Z",
        session="synthetic",
    )


def records(count: int, seed: int = 0, models: int = 6, noise: float = 0.01) -> list[GroupRecord]:
    """Return groups of two and three chains from several models that share some operators."""
    rng = np.random.default_rng(seed)
    common = operators(6, seed)
    own = [operators(14, seed + 1 + model) for model in range(models)]
    made: dict[str, GroupRecord] = {}
    while len(made) < count:
        model = int(rng.integers(models))
        pool = common + own[model]
        chains = [
            [pool[int(i)] for i in rng.integers(len(pool), size=int(rng.integers(1, 3)))]
            for _ in range(int(rng.integers(2, 4)))
        ]
        one = record(chains, f"synthetic:{model}", float(rng.normal(0.0, noise)))
        made[one.group_id] = one
    return list(made.values())


def _spread(time_us: float) -> Spread:
    return Spread(round(time_us * 0.98, 3), round(time_us, 3), round(time_us * 1.03, 3), 30)
