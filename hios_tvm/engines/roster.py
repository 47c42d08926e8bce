"""All engines that a comparison knows, and which of them a user asked for."""

from collections.abc import Sequence

from hios.errors import InvalidOption
from hios_tvm.engines.hios_executor import (
    built_model,
    scheduled,
    streams_of_wide_device,
    wide_device,
)
from hios_tvm.engines.onnx_runtime import cpu_session, gpu_session, parallel_session
from hios_tvm.engines.openvino import openvino_cpu
from hios_tvm.engines.protocol import Contender
from hios_tvm.engines.pytorch import pytorch
from hios_tvm.engines.tensorrt import tensorrt
from hios_tvm.engines.tvm_graph_executor import graph_executor
from hios_tvm.engines.tvm_vm import virtual_machine

__all__ = ["ROSTER", "choose"]

ROSTER: tuple[Contender, ...] = (
    scheduled("sequential"),
    streams_of_wide_device("ios"),
    scheduled("hios-lp"),
    scheduled("hios-mr"),
    scheduled("auto"),
    wide_device(),
    built_model(),
    virtual_machine("ours", 1),
    virtual_machine("ours", None),
    virtual_machine("default", 1),
    graph_executor(1),
    graph_executor(None),
    cpu_session(1),
    cpu_session(None),
    parallel_session(),
    gpu_session("cuda"),
    gpu_session("tensorrt"),
    pytorch("eager", 1),
    pytorch("eager", None),
    pytorch("compile", None),
    pytorch("cuda-eager", None),
    pytorch("cuda-compile", None),
    pytorch("cuda-graph", None),
    tensorrt("fp32"),
    tensorrt("tf32"),
    tensorrt("fp16"),
    openvino_cpu(1),
    openvino_cpu(None),
)
"""In the order of a table; the first is the baseline unless another is named."""


def choose(names: Sequence[str]) -> list[Contender]:
    """Return the engines that keys and families name, in the order of the roster.

    Parameters
    ----------
    names
        Keys (``ort-parallel``) and families (``ort``); a leading ``-`` leaves one out. None
        at all, or only such ones: of everybody.

    Raises
    ------
    InvalidOption
        When a name is unknown or nothing is left; the message lists what there is.

    Examples
    --------
    >>> [c.key for c in choose(["hios-lp", "ort", "-ort-cuda", "-ort-tensorrt"])]
    ['hios-lp', 'ort-1', 'ort-all', 'ort-parallel']
    """
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for name in names:
        bare = name.removeprefix("-")
        found = {c.key for c in ROSTER if bare in (c.key, c.family)}
        if not found:
            families = ", ".join(dict.fromkeys(c.family for c in ROSTER))
            raise InvalidOption(
                f"no engine {bare!r}; families are {families}, engines "
                + ", ".join(c.key for c in ROSTER)
            )
        (unwanted if name.startswith("-") else wanted).update(found)
    chosen = [c for c in ROSTER if (c.key in wanted or not wanted) and c.key not in unwanted]
    if not chosen:
        raise InvalidOption(f"--engines {','.join(names)} leaves none; name at least one")
    return chosen
