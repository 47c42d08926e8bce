"""What the tests on a GPU share: the devices, compiled networks, machines of logical devices.

Networks come compiled: from the folder that ``HIOS_NETWORKS`` names (`make gpu-bundle` packs
one), else they are compiled here, which needs nvcc.
"""

import shutil
from pathlib import Path

import pytest
from gpu_networks import FOLDER, compile_network

from benchmarks.gpu.networks import load_network
from graph_executor.cuda.detect import count_devices, detect_machine


def pytest_collection_modifyitems(items):
    """Skip everything here, with one reason, where there is no GPU.

    With pytest-xdist and ``--dist loadgroup`` one worker runs all tests of a network: it is loaded
    once.
    """
    count = count_devices()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            name = item.callspec.params.get("name") if hasattr(item, "callspec") else None
            item.add_marker(pytest.mark.xdist_group(name or "others"))
            if count == 0:
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Return a function from names to compiled graphs, each made once."""
    made = {}

    def get(name):
        if name not in made:
            if FOLDER:
                made[name] = load_network(Path(FOLDER, name))
            else:
                if shutil.which("nvcc") is None:
                    pytest.skip("no nvcc to compile with; set HIOS_NETWORKS")
                made[name] = compile_network(name, tmp_path_factory.mktemp("gpu"))
        return made[name]

    return get


@pytest.fixture(scope="session")
def machine():
    """Return a function (logical devices, streams) → machine, on as many GPUs as there are."""

    def get(devices, streams, one_gpu=False):
        count = 1 if one_gpu else count_devices()
        found = detect_machine([f"cuda:{i % count}" for i in range(devices)], streams)
        assert found is not None
        return found

    return get
