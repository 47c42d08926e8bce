"""The trees of a trained model, laid out to be asked quickly.

XGBoost answers one row in about half a millisecond, most of it spent outside the trees, and
schedulers ask often for a few rows. Here every tree is a perfect one of the same depth in two
flat arrays (children of node i are 2i + 1 and 2i + 2; a shorter branch repeats its leaf), so a
row goes down without a branch to mispredict, in compiled code, and rounding is XGBoost's: single
precision, trees in order.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cost_model.ubjson import read_ubjson

if TYPE_CHECKING:
    import xgboost

__all__ = ["Forest"]

_MOST_DEPTH = 12
"""Training allows no more; perfect trees double with every level."""

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Forest:
    """Perfect trees of one depth.

    Attributes
    ----------
    features
        What each inner node compares, ``(trees, 2^depth − 1)``.
    thresholds
        Below it a row goes left, ``(trees, 2^depth − 1)``.
    leaves
        ``(trees, 2^depth)``.
    outputs
        Which output each tree adds to.
    n_features
        How many features a row has.
    """

    features: npt.NDArray[np.uint32]
    thresholds: Singles
    leaves: Singles
    outputs: npt.NDArray[np.int32]
    n_features: int

    @staticmethod
    def of(booster: "xgboost.Booster") -> "Forest":
        """Return the trees of a booster without categories."""
        return Forest.read(read_ubjson(bytes(booster.save_raw("ubj"))))

    @staticmethod
    def read(model: Mapping[str, Any]) -> "Forest":
        """Return the trees of what a model file holds.

        Raises
        ------
        ValueError, KeyError, TypeError, IndexError
            When it holds no trees, or damaged ones.
        """
        learner = model["learner"]
        content = learner["gradient_booster"]["model"]
        trees = content["trees"]
        n_features = int(learner["learner_model_param"]["num_feature"])
        depth = max([_depth(tree) for tree in trees], default=0)
        inner, bottom = 2**depth - 1, 2**depth
        features = np.zeros((len(trees), inner), np.uint32)
        thresholds = np.full((len(trees), inner), np.inf, np.float32)
        leaves = np.zeros((len(trees), bottom), np.float32)
        for i, tree in enumerate(trees):
            _fill(tree, 0, 0, inner, features[i], thresholds[i], leaves[i])
        outputs = np.array(content["tree_info"], np.int32)
        if len(outputs) != len(trees) or (features >= n_features).any():
            raise ValueError("trees and what they compare do not fit together")
        base = np.atleast_1d(np.array(json.loads(learner["learner_model_param"]["base_score"])))
        if (outputs < 0).any() or (outputs >= len(base)).any():
            raise ValueError("a tree adds to an output that there is not")
        return Forest(features, thresholds, leaves, outputs, n_features)

    def digest(self) -> str:
        """Return a hash of all trees."""
        parts = (self.features, self.thresholds, self.leaves, self.outputs)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def predict(self, rows: Singles, margin: Singles) -> Singles:
        """Return the raw prediction of each row.

        Parameters
        ----------
        rows
            Features, ``(n, features)``.
        margin
            What each row starts from, ``(n,)``.

        Returns
        -------
        array
            ``(n, outputs)``.
        """
        count = int(self.outputs.max(initial=0)) + 1
        found = np.repeat(margin.astype(np.float32)[:, None], count, axis=1)
        if len(self.outputs):
            _evaluate()(
                np.ascontiguousarray(rows),
                self.features,
                self.thresholds,
                self.leaves,
                self.outputs,
                self.leaves.shape[1].bit_length() - 1,
                found,
            )
        return found


def _depth(tree: Mapping[str, Any], node: int = 0, so_far: int = 0) -> int:
    if so_far > _MOST_DEPTH:
        raise ValueError(f"a tree deeper than {_MOST_DEPTH}")
    left, right = int(tree["left_children"][node]), int(tree["right_children"][node])
    if left < 0:
        return 0
    return 1 + max(_depth(tree, child, so_far + 1) for child in (left, right))


def _fill(
    tree: Mapping[str, Any],
    node: int,
    place: int,
    inner: int,
    features: npt.NDArray[np.uint32],
    thresholds: Singles,
    leaves: Singles,
) -> None:
    """Write the subtree of `node` below `place`; a leaf is repeated down to the bottom."""
    left, right = int(tree["left_children"][node]), int(tree["right_children"][node])
    if place >= inner:
        leaves[place - inner] = tree["split_conditions"][node]
        return
    if left < 0:
        left = right = node
    else:
        features[place] = tree["split_indices"][node]
        thresholds[place] = tree["split_conditions"][node]
    for child, below in ((left, 2 * place + 1), (right, 2 * place + 2)):
        _fill(tree, child, below, inner, features, thresholds, leaves)


@cache
def _evaluate() -> Any:
    """Return the compiled loop; numba is imported at the first prediction."""
    from hios.schedulers.search.compiled import compiled

    return compiled(_evaluate_rows)


def _evaluate_rows(
    rows: Singles,
    features: npt.NDArray[np.uint32],
    thresholds: Singles,
    leaves: Singles,
    outputs: npt.NDArray[np.int32],
    depth: int,
    found: Singles,
) -> None:
    inner = np.uint32(features.shape[1])
    one = np.uint32(1)
    # A block of rows stays in the nearest cache while all trees pass over it. Unsigned places
    # spare the check for negative ones, which takes longer than the comparison.
    for start in range(0, rows.shape[0], 64):
        end = min(start + 64, rows.shape[0])
        for tree in range(features.shape[0]):
            asked, limits, values = features[tree], thresholds[tree], leaves[tree]
            output = outputs[tree]
            for index in range(start, end):
                row = rows[index]
                node = np.uint32(0)
                for _ in range(depth):
                    node = node + node + one + np.uint32(row[asked[node]] >= limits[node])
                found[index, output] += values[node - inner]
