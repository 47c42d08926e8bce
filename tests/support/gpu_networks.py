"""Networks that the tests on a GPU run: from a bundle, else compiled for the GPU that is here."""

import os
from pathlib import Path

from benchmarks.gpu.networks import find_networks, load_network, save_network
from graph_executor.cuda.open import open_driver

FOLDER = os.environ.get("HIOS_NETWORKS", "")
BUILT = ("light:squeezenet", "zoo:randwire_small@64", "zoo:nasnet_mobile@64")


def names():
    """Networks to test, without loading them."""
    if FOLDER:
        return [path.name for path in find_networks(Path(FOLDER)) if path.name[:5] != "pair_"]
    return list(BUILT)


def compile_network(name, folder):
    """Compile a network for the GPU that is here, and load it as from a bundle."""
    from hios_tvm.sources import compile_model

    facts = open_driver().facts(0)
    save_network(folder / "network", compile_model(name, f"cuda:{facts.architecture}"))
    return load_network(folder / "network")
