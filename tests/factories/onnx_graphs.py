"""ONNX graphs that tests compare with, models that trip converters, and rows at the boundaries of trees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

# kZeroThreshold of LightGBM, and values around what libraries treat in a way of their own.
ZERO = float(np.float32(1e-35))
ODD = (0.0, -0.0, 1e-35, -1e-35, 1e-36, -1e-36, ZERO, -ZERO, 2e-35, -2e-35, 5e-324, 1e30, -1e30)
EXTREMES = (np.nan, np.inf, -np.inf, 1e300, -1e300)


def plain_onnxmltools(booster: Any, width: int) -> bytes:
    """What onnxmltools makes of a LightGBM booster: float thresholds, rounded to nearest.

    The graph's input is ``X``, floats of shape (rows, ``width``); a regression's output is ``variable``, of shape
    (rows, 1), a classification's are ``label`` and ``probabilities``.
    """
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_lightgbm(
        booster, initial_types=[("X", FloatTensorType([None, width]))], zipmap=False, target_opset=15
    )
    return bytes(model.SerializeToString())


def lightgbm_with_a_flip() -> tuple[Any, pd.DataFrame]:
    """A binary LightGBM booster whose one threshold lies between two neighbouring floats, and its training frame.

    The threshold, 1 - 2⁻²⁵, rounds to 1.0. So rows with f0 = 1.0 have a probability near 1, and near 0 after a
    conversion that rounds to the nearest float.
    """
    import lightgbm

    below = np.nextafter(np.float32(1), np.float32(0))
    frame = pd.DataFrame({"f0": np.repeat([below, np.float32(1)], 100), "f1": np.zeros(200, "float32")})
    params = {"objective": "binary", "min_data_in_leaf": 5, "learning_rate": 0.5, "verbose": -1, "num_threads": 1}
    return lightgbm.train(params, lightgbm.Dataset(frame, np.repeat([0, 1], 100)), 10), frame


def edge_rows(frame: pd.DataFrame, splits: Iterable[tuple[str, float]], extremes: Iterable[float] = ()) -> pd.DataFrame:
    """Rows of the frame, and such with one float column at a boundary.

    Args:
        frame: rows that reach many leaves.
        splits: (column, threshold) of each split.
        extremes: further values for each column of floats.

    Returns:
        For each split one row at the threshold and at its two neighbours among floats and among doubles; for each
        column five rows with each of the values that are treated in a way of their own.
    """
    wanted: list[tuple[str, float]] = []
    for column, threshold in splits:
        if np.isfinite(threshold):
            narrow = np.float32(threshold)
            near = [threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)]
            near += [narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
            wanted += [(column, float(value)) for value in near]
    floats = [name for name in frame if frame[name].dtype.kind == "f"]
    wanted += [(name, value) for name in floats for value in (*ODD, *extremes) for _ in range(5)]
    rows = frame.sample(len(wanted), replace=True, random_state=1, ignore_index=True)
    positions = pd.Series([name for name, _ in wanted])
    values = np.array([value for _, value in wanted])
    with np.errstate(over="ignore"):
        for name in floats:
            chosen = (positions == name).to_numpy()
            rows.loc[chosen, name] = values[chosen].astype(frame[name].dtype)
    return pd.concat([frame, rows], ignore_index=True)


def as_version_3(model: Any) -> bytes:
    """A graph's TreeEnsemble as the TreeEnsembleRegressor of ai.onnx.ml 3, alone, with the same doubles.

    For tools that do not read the newer operator. The input ``X`` is what that operator is given.
    """
    from onnx import TensorProto, helper, numpy_helper

    (node,) = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    tensors = {name: numpy_helper.to_array(given[name]) for name in ("nodes_splits", "nodes_modes", "leaf_weights")}
    splits = len(given["nodes_featureids"])
    rows, leaves = [], []  # tree, node, feature, mode, threshold, true, false, tracks; tree, node, target, weight
    for tree, root in enumerate(given["tree_roots"]):
        todo = [(root, False)]
        while todo:
            at, is_leaf = todo.pop()
            if is_leaf:
                rows.append((tree, splits + at, 0, "LEAF", 0.0, 0, 0, 0))
                leaves.append((tree, splits + at, given["leaf_targetids"][at], tensors["leaf_weights"][at]))
                continue
            ids = []
            for side in ("true", "false"):
                child = (given[f"nodes_{side}nodeids"][at], bool(given[f"nodes_{side}leafs"][at]))
                ids.append(child[0] + splits * child[1])
                todo.append(child)
            mode = {0: "BRANCH_LEQ", 1: "BRANCH_LT"}[int(tensors["nodes_modes"][at])]
            tracks = given["nodes_missing_value_tracks_true"][at]
            rows.append((tree, at, given["nodes_featureids"][at], mode, tensors["nodes_splits"][at], *ids, tracks))
    columns = [list(column) for column in zip(*rows, strict=True)]
    leaf_columns = [list(column) for column in zip(*leaves, strict=True)]
    regressor = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["variable"],
        domain="ai.onnx.ml",
        n_targets=given["n_targets"],
        nodes_treeids=columns[0],
        nodes_nodeids=columns[1],
        nodes_featureids=columns[2],
        nodes_modes=columns[3],
        nodes_values_as_tensor=numpy_helper.from_array(np.array(columns[4], np.float64)),
        nodes_truenodeids=columns[5],
        nodes_falsenodeids=columns[6],
        nodes_missing_value_tracks_true=columns[7],
        target_treeids=leaf_columns[0],
        target_nodeids=leaf_columns[1],
        target_ids=leaf_columns[2],
        target_weights_as_tensor=numpy_helper.from_array(np.array(leaf_columns[3], np.float64)),
    )
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    graph = helper.make_graph(
        [regressor],
        "trees",
        [helper.make_tensor_value_info("X", TensorProto.DOUBLE, [None, width])],
        [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, given["n_targets"]])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
