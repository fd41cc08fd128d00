"""Compiles a LightGBM or XGBoost model with tl2cgen: ``compile_trees.py MODEL KIND LIBRARY``. Not timed."""

from __future__ import annotations

import sys

import tl2cgen
import treelite


def compile_trees(model: str, kind: str, library: str) -> None:
    """Writes a shared library, optimised as its documentation advises."""
    load = treelite.frontend.load_lightgbm_model if kind == "lightgbm" else treelite.frontend.load_xgboost_model
    tl2cgen.export_lib(load(model), toolchain="gcc", libpath=library, params={"parallel_comp": 8}, verbose=False)


if __name__ == "__main__":
    compile_trees(*sys.argv[1:])
