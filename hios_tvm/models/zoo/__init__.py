"""Networks on which scheduling between operators is judged, at any size, without downloads.

    model = hios_tvm.models.zoo.build("inception_v3", image_size=512)

Weights are drawn from a seed: the structure, shapes and work are those of the papers, the
predictions mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hios.errors import InvalidOption, UnsupportedModel
from hios_tvm.models.draft import OnnxDraft
from hios_tvm.models.graph import Graph
from hios_tvm.models.node_options import is_count
from hios_tvm.models.onnx_export import draft_graph
from hios_tvm.models.zoo.inception_v3 import inception_v3
from hios_tvm.models.zoo.nasnet import nasnet_large, nasnet_mobile
from hios_tvm.models.zoo.randwire import randwire_large, randwire_regular, randwire_small
from hios_tvm.models.zoo.resnet50 import resnet50
from hios_tvm.models.zoo.retinanet import retinanet
from hios_tvm.models.zoo.squeezenet import squeezenet, squeezenet_bypass
from hios_tvm.models.zoo.transformer import bert_base, moe_block
from hios_tvm.models.zoo.vgg_alexnet import alexnet, vgg16

if TYPE_CHECKING:
    import onnx

__all__ = ["NETWORKS", "ZooNetwork", "build", "draft", "graph"]


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """One network of the zoo.

    Attributes
    ----------
    name
        As in ``zoo:NAME``.
    image_size
        Default size: the side of the image, or the number of tokens.
    least_size
        Smallest legal size.
    source
        Paper and variant.
    as_graph
        ``(image_size, width) -> Graph``, or None where the builder has no words for it.
    as_draft
        ``(image_size, batch, width) -> OnnxDraft`` for those.
    """

    name: str
    image_size: int
    least_size: int
    source: str
    as_graph: Callable[[int, float], Graph] | None = None
    as_draft: Callable[[int, int, float], OnnxDraft] | None = None


NETWORKS: dict[str, ZooNetwork] = {
    network.name: network
    for network in (
        ZooNetwork(
            "inception_v3", 299, 75, "Szegedy et al., CVPR 2016, arXiv:1512.00567", inception_v3
        ),
        ZooNetwork(
            "nasnet_large", 331, 3, "Zoph et al., CVPR 2018, arXiv:1707.07012", nasnet_large
        ),
        ZooNetwork(
            "nasnet_mobile", 224, 3, "Zoph et al., CVPR 2018, arXiv:1707.07012", nasnet_mobile
        ),
        ZooNetwork(
            "randwire_small", 224, 1, "Xie et al., ICCV 2019, arXiv:1904.01569", randwire_small
        ),
        ZooNetwork(
            "randwire_regular", 224, 1, "Xie et al., ICCV 2019, arXiv:1904.01569", randwire_regular
        ),
        ZooNetwork(
            "randwire_large", 224, 1, "Xie et al., ICCV 2019, arXiv:1904.01569", randwire_large
        ),
        ZooNetwork("squeezenet", 224, 31, "Iandola et al., 2016, arXiv:1602.07360", squeezenet),
        ZooNetwork(
            "squeezenet_bypass",
            224,
            31,
            "Iandola et al., 2016, arXiv:1602.07360, section 6",
            squeezenet_bypass,
        ),
        ZooNetwork("resnet50", 224, 1, "He et al., CVPR 2016, arXiv:1512.03385", resnet50),
        ZooNetwork("vgg16", 224, 32, "Simonyan and Zisserman, 2015, arXiv:1409.1556", vgg16),
        ZooNetwork("alexnet", 224, 63, "Krizhevsky, 2014, arXiv:1404.5997", alexnet),
        ZooNetwork(
            "retinanet", 800, 1, "Lin et al., ICCV 2017, arXiv:1708.02002", as_draft=retinanet
        ),
        ZooNetwork(
            "bert_base", 128, 1, "Devlin et al., NAACL 2019, arXiv:1810.04805", as_draft=bert_base
        ),
        ZooNetwork(
            "moe_block", 128, 1, "Fedus et al., JMLR 2022, arXiv:2101.03961", as_draft=moe_block
        ),
    )
}
"""All networks by name."""


def build(
    name: str,
    image_size: int | None = None,
    batch: int = 1,
    seed: int = 0,
    width: float = 1.0,
) -> onnx.ModelProto:
    """Build a network as ONNX.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    image_size : int, optional
        Side of the image, or number of tokens; that of the paper by default.
    batch : int
        Images or sequences in one run.
    seed : int
        Seed of the weights.
    width : float
        Multiplier of all channels; below 1 for quick tests.

    Returns
    -------
    onnx.ModelProto
        float32, static shapes, input ``data``.

    Raises
    ------
    UnsupportedModel
        When there is no such network.
    InvalidOption
        When a number is out of range; for an image too small, the message names the operator
        that it does not fit and the smallest legal size.
    """
    return draft(name, image_size, batch, width).to_model(seed)


def draft(
    name: str, image_size: int | None = None, batch: int = 1, width: float = 1.0
) -> OnnxDraft:
    """Build a network without drawing its weights, for counting.

    Parameters and errors are those of `build`.
    """
    network = _network(name)
    size = _size(network, image_size)
    if not is_count(batch):
        raise InvalidOption(f"batch is {batch!r}; it must be a positive integer")
    if network.as_draft is not None:
        return network.as_draft(size, batch, width)
    return draft_graph(graph(name, size, width), batch)


def graph(name: str, image_size: int | None = None, width: float = 1.0) -> Graph:
    """Build a network in the terms of the builder.

    Parameters and errors are those of `build`.

    Raises
    ------
    UnsupportedModel
        Also for the networks that the builder has no words for.
    """
    network = _network(name)
    size = _size(network, image_size)
    if network.as_graph is None:
        known = ", ".join(n.name for n in NETWORKS.values() if n.as_graph)
        raise UnsupportedModel(f"{name} exists as ONNX only; networks of the builder are {known}")
    try:
        return network.as_graph(size, width)
    except InvalidOption as error:
        if size >= network.least_size:
            raise
        raise InvalidOption(
            f"{name} needs an image of {network.least_size} at least, got {size}: {error}"
        ) from error


def _network(name: str) -> ZooNetwork:
    if name not in NETWORKS:
        raise UnsupportedModel(f"the zoo has no network {name!r}; it has {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _size(network: ZooNetwork, size: int | None) -> int:
    if size is None:
        return network.image_size
    if not is_count(size):
        raise InvalidOption(f"image_size is {size!r}; it must be a positive integer")
    return size
