"""hios-tvm: compile a network with Apache TVM and run it on several devices and streams.

Nothing below is imported before it is used (PEP 562): `import hios_tvm` loads neither TVM nor
XGBoost.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hios import __version__
from hios.errors import HiosError

if TYPE_CHECKING:
    from graph_executor.executor import GraphExecutor
    from hios_tvm.api import build, load, pipeline, register_pipeline, schedule
    from hios_tvm.model import Model
    from hios_tvm.relay import pass_context

__all__ = [
    "GraphExecutor",
    "HiosError",
    "Model",
    "__version__",
    "build",
    "load",
    "pass_context",
    "pipeline",
    "register_pipeline",
    "schedule",
]

_HOMES = {
    "GraphExecutor": "graph_executor.executor",
    "Model": "hios_tvm.model",
    "build": "hios_tvm.api",
    "load": "hios_tvm.api",
    "pass_context": "hios_tvm.relay",
    "pipeline": "hios_tvm.api",
    "register_pipeline": "hios_tvm.api",
    "schedule": "hios_tvm.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # found without __getattr__ from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
