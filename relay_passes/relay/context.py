"""A pass context in which the stock ``relay.build`` also schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm

from relay_passes.relay.instrument import HIOSInstrument

__all__ = ["pass_context"]


def pass_context(
    partition: Any,
    opt_level: int = 3,
    required_pass: Sequence[str] | None = None,
    disabled_pass: Sequence[str] | None = None,
    instruments: Sequence[Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """Return a ``tvm.transform.PassContext`` with a partition pass in it.

    Parameters
    ----------
    partition : HIOSPartition
        What decides.
    opt_level, required_pass, disabled_pass, instruments, config
        As ``tvm.transform.PassContext`` takes them; ours is added to the instruments.
    """
    return tvm.transform.PassContext(
        opt_level=opt_level,
        required_pass=list(required_pass) if required_pass is not None else None,
        disabled_pass=list(disabled_pass) if disabled_pass is not None else None,
        instruments=[*(instruments or ()), HIOSInstrument(partition)],
        config=dict(config) if config is not None else None,
    )
