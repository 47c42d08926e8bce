"""Named topologies and the reference graphs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hios.graph_file import GraphFile, read_graph_file
from hios.ir.graph import OpGraph
from hios.testing import TOPOLOGIES

DAGS = Path(__file__).parent.parent / "data" / "dags"


@pytest.fixture(params=sorted(TOPOLOGIES))
def topology(request: pytest.FixtureRequest) -> OpGraph:
    make: Callable[[], OpGraph] = TOPOLOGIES[request.param]
    return make()


@pytest.fixture(params=sorted(path.stem for path in DAGS.glob("*.json")))
def reference_graph(request: pytest.FixtureRequest) -> tuple[GraphFile, list[dict[str, Any]]]:
    """A graph file and its reference figures."""
    path = DAGS / f"{request.param}.json"
    return read_graph_file(path), json.loads(path.read_text())["reference"]
