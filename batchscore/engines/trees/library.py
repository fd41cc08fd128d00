"""The walker as a shared library: built by the driver, called by workers with nothing but ctypes.

The trees are not compiled: they are data that one small walker goes through. That is faster than a tree of C
statements, most of all for large ensembles, whose code does not fit a core's caches and takes minutes to optimise.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.forest import Dtype, Forest
from batchscore.engines.trees.pack import pack
from batchscore.engines.trees.scores import Scores
from batchscore.errors import SetupError

SOURCES = ("walk.c", "walk_rows.h")
COMPILERS = ("cc", "gcc", "clang")
# No -march: the library runs on any machine of its architecture. Contraction to fused multiply-add would change bits.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off", "-s")
COMPILE_SECONDS = 120
ROWS = 16  # walked at once; ROWS in walk.c
ROWS_A_THREAD = 1024  # fewer are not worth a second thread
HINT = "install a C compiler (cc, gcc or clang) or name one in the environment variable CC, or choose another engine"


class _Forest(ctypes.Structure):
    """``forest_t`` of walk.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("trees", "features", "columns", "targets", "width")),
        *((name, ctypes.c_void_p) for name in ("roots", "depths", "target", "nodes", "slots", "values", "base")),
        *((name, ctypes.c_void_p) for name in ("source", "rules", "negated", "sets", "words")),
    )


class Walker:
    """A forest in the walker's form, for rows of one type.

    Args:
        path: the library that :func:`build` made.
        forest: the model.
        dtype: of the rows.
        threads: among which the rows of a call are divided.

    Raises:
        SetupError: the library does not load on this machine.
    """

    def __init__(self, path: Path, forest: Forest, dtype: Dtype, threads: int = 1) -> None:
        library = _loaded(path)
        packed = pack(forest, dtype)
        self._dtype = np.dtype(dtype)
        self._forest = forest
        self._library = library
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._columns = len(packed.source)
        self._kept = {
            "roots": packed.roots,
            "depths": packed.depths,
            "target": forest.target,
            "nodes": packed.nodes,
            "slots": packed.slots,
            "values": forest.values,
            "base": forest.base,
            "source": packed.source,
            "rules": packed.rules,
            "negated": packed.negated,
            "sets": packed.sets,
            "words": forest.words,
        }
        self._kept = {name: np.ascontiguousarray(array) for name, array in self._kept.items()}
        self._struct = _Forest(
            len(forest.roots),
            forest.features,
            self._columns,
            len(forest.base),
            forest.values.shape[1],
            **{name: array.ctypes.data for name, array in self._kept.items()},
        )
        kinds = ("float" if dtype == "float32" else "double", "float" if forest.sums == "float32" else "double")
        self._walk = library[f"walk_{kinds[0]}_{kinds[1]}{'_sets' if len(forest.sets) else ''}"]
        self._walk.restype = None

    def sums(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The sums of rows, as the model's library adds them.

        Args:
            matrix: (rows, features) of the walker's type, row-major.

        Returns:
            (rows, K)
        """
        if matrix.dtype != self._dtype or matrix.ndim != 2 or matrix.shape[1] != self._forest.features:  # noqa: PLR2004
            raise ValueError(f"rows of {self._dtype} and {self._forest.features} features, not {matrix.shape}")
        matrix = np.ascontiguousarray(matrix)
        sums = np.empty((len(matrix), len(self._forest.base)))
        parts = min(self._threads, max(1, len(matrix) // ROWS_A_THREAD))
        if parts == 1:
            self._part(matrix, sums)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads)
            list(self._pool.map(self._part, np.array_split(matrix, parts), np.array_split(sums, parts)))
        if self._forest.divisor != 1:
            sums /= self._forest.divisor
        return sums

    def _part(self, matrix: npt.NDArray[Any], sums: npt.NDArray[np.float64]) -> None:
        room = np.empty(ROWS * self._columns, self._dtype)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (matrix, room, sums)]
        self._walk(ctypes.byref(self._struct), pointers[0], ctypes.c_int64(len(matrix)), pointers[1], pointers[2])

    def linked(self, scores: Scores, sums: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        """The link's values of ``sums``, which it may overwrite, with libm as the model's library does.

        Returns:
            (rows, K) in the type of ``scores``.
        """
        if scores.by_numpy or scores.link not in {"sigmoid", "softmax", "exp"}:
            return scores.linked(sums)
        kind = "float" if scores.dtype == "float32" else "double"
        function = self._library[f"{scores.link}_{kind}"]
        function.restype = None
        pointer = ctypes.c_void_p(sums.ctypes.data)
        if scores.link == "softmax":
            function(pointer, ctypes.c_int64(len(sums)), ctypes.c_int32(sums.shape[1]))
        elif scores.link == "sigmoid":
            function(pointer, ctypes.c_int64(sums.size), ctypes.c_double(scores.scale))
        else:
            function(pointer, ctypes.c_int64(sums.size))
        return sums.astype(scores.dtype, copy=False)


def compiler() -> list[str] | None:
    """The C compiler's command, or None where there is none."""
    given = shlex.split(os.environ.get("CC", ""))
    if given:
        return given if shutil.which(given[0]) else None
    return next(([name] for name in COMPILERS if shutil.which(name)), None)


def compiler_version() -> str:
    """The compiler's first line about itself, '' where there is none."""
    command = compiler()
    if command is None:
        return ""
    found = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)  # noqa: S603  # CC
    return found.stdout.partition("\n")[0].strip()


def build(path: Path) -> None:
    """Compiles the walker.

    Args:
        path: where the library goes.

    Raises:
        SetupError: no compiler, or it fails.
    """
    command = compiler()
    if command is None:
        raise SetupError("engine compiled needs a C compiler", found=os.environ.get("CC") or "none", hint=HINT)
    with tempfile.TemporaryDirectory() as folder:  # so that no path of this machine gets into the library
        for name in SOURCES:
            shutil.copyfile(Path(__file__).with_name(name), Path(folder) / name)
        arguments = [*command, *FLAGS, SOURCES[0], "-o", "walk.so", "-lm"]
        try:
            found = subprocess.run(  # noqa: S603  # the user's compiler, fixed arguments
                arguments, cwd=folder, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SetupError("the C compiler does not run", found=error, hint=HINT) from error
        built = Path(folder) / "walk.so"
        if found.returncode or not built.exists():
            lines = found.stderr.strip().splitlines()[-3:]
            raise SetupError(
                f"the C compiler failed with exit code {found.returncode}",
                found=shlex.join(arguments),
                detail=lines,
                hint=HINT,
            )
        shutil.copyfile(built, path)


def this_platform() -> dict[str, str]:
    """What a library built here needs: system, machine and C library."""
    name, version = platform.libc_ver()
    return {"system": sys.platform, "machine": platform.machine(), "libc": name, "libc_version": version}


def check_platform(built: dict[str, str]) -> None:
    """Compares the platform of a library with this one.

    Raises:
        SetupError: it cannot run here.
    """
    here = this_platform()
    same = all(built.get(key) == here[key] for key in ("system", "machine", "libc"))
    if not same or _numbers(built.get("libc_version", "")) > _numbers(here["libc_version"]):
        raise SetupError(
            "the compiled model was built on another platform than this worker's",
            found=" ".join(here.values()),
            allowed=(" ".join(built.values()),),
            hint="start batchscore on a machine like its workers (an older C library will do), or use another engine",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise SetupError("the compiled model does not load on this machine", found=error, hint=HINT) from error
