"""Trees of any library as one TreeEnsemble operator (ai.onnx.ml 5).

The nodes are written here, and not by the libraries' ONNX converters, because those write the operators of ai.onnx.ml
1 to 3: thresholds and leaf values are rounded to float there, the sum is a float in any case, and categories become a
chain of nodes each. This operator has doubles throughout, sets of categories, and sums in the order of the trees, so
that a score is the library's own to the last bits, ties between classes included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from batchscore.engines.onnx_convert.graph import FLOAT32, FLOAT64, ML, Graph, Matrix

# The operator's codes.
AT_MOST, BELOW, MEMBER = 0, 1, 6

Link: TypeAlias = Literal["identity", "sigmoid", "softmax", "exp"]


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """One tree as arrays with one entry per split; a tree of no splits is its first leaf.

    Attributes:
        target: column of the scores that it adds to.
        feature: feature of each split.
        threshold: of each split.
        mode: :data:`AT_MOST`, :data:`BELOW`, or :data:`MEMBER` of the set of categories.
        missing: whether NaN goes where the condition leads to.
        yes: where it leads to: a split, or ~leaf.
        no: where the contrary leads to.
        leaves: the leaves' values.
        members: split → categories, for the splits of mode :data:`MEMBER`.
    """

    target: int
    feature: np.ndarray[Any, Any]
    threshold: np.ndarray[Any, Any]
    mode: np.ndarray[Any, Any]
    missing: np.ndarray[Any, Any]
    yes: np.ndarray[Any, Any]
    no: np.ndarray[Any, Any]
    leaves: np.ndarray[Any, Any]
    members: dict[int, Sequence[int]]


def constant_tree(target: int, value: float) -> Tree:
    """A tree of one leaf: the value that the sum begins with."""
    none = np.array([], np.int64)
    return Tree(target, none, none.astype(float), none, none.astype(bool), none, none, np.array([value]), {})


def tree_sums(graph: Graph, features: Matrix, trees: Sequence[Tree], targets: int) -> Matrix:
    """The sums of the trees' leaves, per target, of shape (rows, targets).

    Args:
        graph: gets the operator.
        features: in the type, float32 or float64, in which values are compared and leaves are added up.
        trees: added up in this order.
        targets: columns of the result.
    """
    from onnx import numpy_helper  # noqa: PLC0415  # of no use to workers

    trees = [tree if len(tree.feature) else _with_a_split(tree) for tree in trees]
    splits = np.cumsum([0, *[len(tree.feature) for tree in trees]])
    leaves = np.cumsum([0, *[len(tree.leaves) for tree in trees]])
    yes = np.concatenate([_shifted(tree.yes, *at) for tree, *at in zip(trees, splits, leaves, strict=False)])
    no = np.concatenate([_shifted(tree.no, *at) for tree, *at in zip(trees, splits, leaves, strict=False)])
    tensors = {
        "nodes_modes": np.concatenate([tree.mode for tree in trees]).astype(np.uint8),
        "nodes_splits": np.concatenate([tree.threshold for tree in trees]).astype(features.dtype),
        "leaf_weights": np.concatenate([tree.leaves for tree in trees]).astype(features.dtype),
    }
    members = [value for tree in trees for split in sorted(tree.members) for value in [*tree.members[split], np.nan]]
    if members:
        tensors["membership_values"] = np.array(members, features.dtype)
    name = graph.op(
        "TreeEnsemble",
        features.name,
        domain=ML,
        aggregate_function=1,  # sum
        post_transform=0,
        n_targets=targets,
        tree_roots=splits[:-1].tolist(),
        nodes_featureids=np.concatenate([tree.feature for tree in trees]).tolist(),
        nodes_missing_value_tracks_true=np.concatenate([tree.missing for tree in trees]).astype(int).tolist(),
        nodes_trueleafs=(yes < 0).astype(int).tolist(),
        nodes_truenodeids=np.where(yes < 0, ~yes, yes).tolist(),
        nodes_falseleafs=(no < 0).astype(int).tolist(),
        nodes_falsenodeids=np.where(no < 0, ~no, no).tolist(),
        leaf_targetids=np.repeat([tree.target for tree in trees], [len(tree.leaves) for tree in trees]).tolist(),
        **{key: numpy_helper.from_array(values, key) for key, values in tensors.items()},
    )
    return Matrix(name, features.dtype, targets)


def _with_a_split(tree: Tree) -> Tree:
    """A tree of one leaf behind a split whose sides both lead to it: a root must be a split."""
    zero, leaf = np.zeros(1, np.int64), np.full(1, ~0)
    return replace(
        tree, feature=zero, threshold=zero.astype(float), mode=zero, missing=zero.astype(bool), yes=leaf, no=leaf
    )


def _shifted(children: np.ndarray[Any, Any], splits: int, leaves: int) -> np.ndarray[Any, Any]:
    """Positions within a tree as positions within all of them."""
    return np.where(children < 0, children - leaves, children + splits)


def linked(graph: Graph, scores: Matrix, link: Link) -> Matrix:
    """Scores as the objective gives them, computed in doubles, in the scores' own type."""
    if link == "identity":
        return scores
    wide = graph.cast(scores, FLOAT64)
    if link == "softmax":
        name = graph.op("Softmax", wide.name, axis=1)
    elif link == "exp":
        name = graph.op("Exp", wide.name)
    else:
        # Not the operator Sigmoid, which is an approximation with errors around 1e-7.
        one = graph.constant(np.ones(1))
        name = graph.op("Div", one, graph.op("Add", one, graph.op("Exp", graph.op("Neg", wide.name))))
    return graph.cast(replace(wide, name=name), scores.dtype)


def both_classes(graph: Graph, positive: Matrix) -> Matrix:
    """The probabilities of both classes from that of the second."""
    other = graph.op("Sub", graph.constant(np.ones(1, positive.dtype)), positive.name)
    return Matrix(graph.op("Concat", other, positive.name, axis=1), positive.dtype, 2)


def most_probable(graph: Graph, scores: Matrix) -> str:
    """Position of the first largest column of each row, of shape (rows,)."""
    return graph.op("ArgMax", scores.name, axis=1, keepdims=0)


def above(graph: Graph, scores: Matrix, limit: float, *, or_equal: bool = False) -> str:
    """1 where a row's one score is above the limit, else 0, of shape (rows,)."""
    kind = "GreaterOrEqual" if or_equal else "Greater"
    compared = graph.op(kind, scores.name, graph.constant(np.array([limit], scores.dtype)))
    as_number = graph.op("Cast", compared, to=7)  # int64
    return graph.op("Reshape", as_number, graph.constant(np.array([-1])))


def in_float(graph: Graph, features: Matrix) -> Matrix:
    """Values rounded to float, as libraries that compare floats round them."""
    return graph.cast(features, FLOAT32)
