"""The trees of a trained model, laid out to be asked quickly.

XGBoost answers one row in about half a millisecond, most of it spent outside the trees, and
schedulers ask often for a few rows. Here every tree is a perfect one of the same depth in two
flat arrays (children of node i are 2i + 1 and 2i + 2; a shorter branch repeats its leaf), so a
row goes down without a branch to mispredict, in compiled code, and rounding is XGBoost's: single
precision, trees in order.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xgboost

__all__ = ["Forest"]

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
    base
        What each output starts from, without a margin given.
    """

    features: npt.NDArray[np.int32]
    thresholds: Singles
    leaves: Singles
    outputs: npt.NDArray[np.int32]
    base: Singles

    @staticmethod
    def of(booster: "xgboost.Booster") -> "Forest":
        """Return the trees of a booster without categories; depth is at most 12."""
        raw = json.loads(bytes(booster.save_raw("json")))["learner"]
        model = raw["gradient_booster"]["model"]
        trees = model["trees"]
        depth = max([_depth(tree, 0) for tree in trees], default=0)
        inner, bottom = 2**depth - 1, 2**depth
        features = np.zeros((len(trees), inner), np.int32)
        thresholds = np.full((len(trees), inner), np.inf, np.float32)
        leaves = np.zeros((len(trees), bottom), np.float32)
        for i, tree in enumerate(trees):
            _fill(tree, 0, 0, inner, features[i], thresholds[i], leaves[i])
        base = json.loads(raw["learner_model_param"]["base_score"])
        base = np.atleast_1d(np.array(base, np.float32))
        outputs = np.array(model["tree_info"], np.int32)
        return Forest(features, thresholds, leaves, outputs, base)

    def predict(self, rows: Singles, margin: Singles) -> Singles:
        """Return the raw prediction of each row.

        Parameters
        ----------
        rows
            Features, ``(n, features)``.
        margin
            What each row starts from, ``(n,)``, in place of `base`.

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
                found,
            )
        return found


def _depth(tree: dict[str, Any], node: int) -> int:
    left = tree["left_children"][node]
    if left < 0:
        return 0
    return 1 + max(_depth(tree, left), _depth(tree, tree["right_children"][node]))


def _fill(
    tree: dict[str, Any],
    node: int,
    place: int,
    inner: int,
    features: npt.NDArray[np.int32],
    thresholds: Singles,
    leaves: Singles,
) -> None:
    """Write the subtree of `node` below `place`; a leaf is repeated down to the bottom."""
    left, right = tree["left_children"][node], tree["right_children"][node]
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
    features: npt.NDArray[np.int32],
    thresholds: Singles,
    leaves: Singles,
    outputs: npt.NDArray[np.int32],
    found: Singles,
) -> None:
    inner = features.shape[1]
    # A block of rows stays in the nearest cache while all trees pass over it.
    for start in range(0, rows.shape[0], 64):
        end = min(start + 64, rows.shape[0])
        for tree in range(features.shape[0]):
            for row in range(start, end):
                node = 0
                while node < inner:
                    below = rows[row, features[tree, node]] < thresholds[tree, node]
                    node = 2 * node + 2 - below
                found[row, outputs[tree]] += leaves[tree, node - inner]
