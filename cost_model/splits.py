"""Which groups to train on and which to test on, fixed by rules rather than by a generator.

A group or operator belongs to the fold that the hash of its identity says, so the same group is
tested in the same fold whatever else was collected:

* ``random``: any group, for sanity only;
* ``unseen-group``: groups whose operators all occur in training, but not together;
* ``unseen-operator``: groups with at least one operator of a held-out eighth of all operators;
  training sees none of these;
* ``unseen-model``: leave one network out, in all its sizes and variants; groups that it shares
  with others are not trained on;
* ``unseen-device``: leave one device out, with nothing of it and with 5 % of its groups.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cost_model.dataset import Dataset
from hios.errors import InvalidOption

__all__ = ["SPLITS", "Fold", "fold_number", "folds_of", "network_of"]

SPLITS = ("random", "unseen-group", "unseen-operator", "unseen-model", "unseen-device")
"""(a) to (e)."""

_SALT = "2026-11"
_GROUP_FOLDS = 5
_OPERATOR_FOLDS = 8
_VARIANT = re.compile(r"_(small|regular|large|mobile|bypass)$")
_FEW = 20
"""One in so many groups of a new device is enough to fine-tune: 5 %."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One way to cut a data set.

    Attributes
    ----------
    name
        What is held out.
    train, test
        Places in the data set, ascending, without a common one.
    """

    name: str
    train: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]


def folds_of(data: Dataset, split: str) -> list[Fold]:
    """Return the folds of a split that have something to train on and to test.

    Raises
    ------
    InvalidOption
        When there is no such split.
    """
    makers = {
        "random": _by_group,
        "unseen-group": _by_seen_group,
        "unseen-operator": _by_operator,
        "unseen-model": _by_model,
        "unseen-device": _by_device,
    }
    if split not in makers:
        raise InvalidOption(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    return [fold for fold in makers[split](data) if len(fold.train) and len(fold.test)]


def fold_number(identity: str, folds: int) -> int:
    """Return the fold of an identity, the same everywhere and always."""
    digest = hashlib.sha256(f"{_SALT} {identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % folds


def network_of(model: str) -> str:
    """Return the network that a model is a size, a variant or a published file of.

    Examples
    --------
    >>> [network_of(m) for m in ("zoo:nasnet_large@331", "light:bvlc_alexnet", "a/net.onnx")]
    ['nasnet', 'alexnet', 'net']
    """
    name = model.rsplit("/", 1)[-1].rpartition(":")[2].partition("@")[0].removesuffix(".onnx")
    for prefix in ("light_", "bvlc_"):
        name = name.removeprefix(prefix)
    return _VARIANT.sub("", name)


def _fold(name: str, train: Iterable[bool], test: Iterable[bool]) -> Fold:
    return Fold(name, np.flatnonzero(list(train)), np.flatnonzero(list(test)))


def _by_group(data: Dataset) -> list[Fold]:
    own = [fold_number(f"group {group}", _GROUP_FOLDS) for group in data.ids]
    return [
        _fold(f"fold {fold}", (f != fold for f in own), (f == fold for f in own))
        for fold in range(_GROUP_FOLDS)
    ]


def _by_seen_group(data: Dataset) -> list[Fold]:
    folds = []
    for fold in _by_group(data):
        seen = frozenset().union(*(data.keys[i] for i in fold.train))
        test = [int(i) for i in fold.test if data.keys[i] <= seen]
        folds.append(Fold(fold.name, fold.train, np.array(test, np.intp)))
    return folds


def _by_operator(data: Dataset) -> list[Fold]:
    every = sorted(frozenset().union(*data.keys))
    own = {key: fold_number(f"operator {key}", _OPERATOR_FOLDS) for key in every}
    folds = []
    for fold in range(_OPERATOR_FOLDS):
        touched = [any(own[key] == fold for key in keys) for keys in data.keys]
        folds.append(_fold(f"eighth {fold}", (not t for t in touched), touched))
    return folds


def _by_model(data: Dataset) -> list[Fold]:
    folds = []
    networks = [network_of(model) for model in data.models]
    for model in sorted(set(networks)):
        test = [network == model for network in networks]
        shared = {group for group, mine in zip(data.ids, test, strict=True) if mine}
        folds.append(_fold(model, (group not in shared for group in data.ids), test))
    return folds


def _by_device(data: Dataset) -> list[Fold]:
    devices = data.devices
    folds: list[Fold] = []
    if len(set(devices)) < 2:
        return folds
    for device in sorted(set(devices)):
        test = [d == device for d in devices]
        few = [
            mine and fold_number(f"few {group}", _FEW) == 0
            for group, mine in zip(data.ids, test, strict=True)
        ]
        rest = [mine and not one for mine, one in zip(test, few, strict=True)]
        folds.append(_fold(f"{device}, zero-shot", (not mine for mine in test), rest))
        tuned = (not mine or one for mine, one in zip(test, few, strict=True))
        folds.append(_fold(f"{device}, 5 %", tuned, rest))
    return folds
