"""The compiled kernels, called with nothing but numpy and ctypes.

Two ways to the same bits: bit masks (``masks.c``), whose cost grows with the number of nodes, and a walk (``walk.c``),
whose cost grows with the depth of the trees. Large trees are walked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from batchscore.engines.trees.forest import Dtype, Forest
from batchscore.engines.trees.library import HINT
from batchscore.engines.trees.masks import masks_of, size
from batchscore.engines.trees.pack import pack, steps
from batchscore.engines.trees.scores import Scores
from batchscore.errors import SetupError

Level: TypeAlias = Literal["plain", "avx2", "avx512"]
Columns: TypeAlias = Sequence[npt.NDArray[Any]]

LEVELS: tuple[Level, ...] = ("plain", "avx2", "avx512")  # in the order of what masks_level() returns
BYTES: Mapping[Level, int] = {"plain": 16, "avx2": 32, "avx512": 64}
VECTORS = 4  # of rows at once; see masks_rows.h
WALKED = 16  # rows at once; ROWS in walk.c
POINTER = SUM = 8  # bytes
ROWS_A_THREAD = 1024  # fewer are not worth a second thread
# What a node costs as a mask for each byte of a value, in steps of a walk.
MASK_COST: Mapping[Level, float] = {"plain": 0.045, "avx2": 0.03, "avx512": 0.0125}


class _Masks(ctypes.Structure):
    """``masks_t`` of masks.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("trees", "columns", "targets", "words")),
        *((name, ctypes.c_void_p) for name in ("source", "rules", "target", "first", "leaf", "runs", "nodes")),
        *((name, ctypes.c_void_p) for name in ("sets", "bits", "values", "base")),
    )


class _Forest(ctypes.Structure):
    """``forest_t`` of walk.c."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("trees", "columns", "targets", "width")),
        *((name, ctypes.c_void_p) for name in ("roots", "depths", "target", "nodes", "slots", "values", "base")),
        *((name, ctypes.c_void_p) for name in ("source", "rules", "negated", "sets", "words")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A forest as a function of the library takes it.

    Attributes:
        function: its name.
        structure: what it takes first.
        kept: the arrays that the structure points to.
        room: bytes that a call needs.
    """

    function: str
    structure: ctypes.Structure
    kept: Mapping[str, npt.NDArray[Any]]
    room: int


class Kernel:
    """A forest in a kernel's form, for rows of one type; made by :func:`masks`, :func:`walker` or :func:`fastest`.

    Args:
        library: that has the kernel.
        form: the forest as the kernel takes it.
        forest: the model.
        dtype: of the rows.
        threads: among which the rows of a call are divided.

    Attributes:
        function: the kernel's name in the library.
    """

    def __init__(self, library: ctypes.CDLL, form: _Form, forest: Forest, dtype: Dtype, threads: int) -> None:
        self.function = form.function
        self._run = library[form.function]
        self._run.restype = None
        self._form, self._forest, self._dtype = form, forest, np.dtype(dtype)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def sums(self, columns: Columns) -> npt.NDArray[np.float64]:
        """The sums of rows, as the model's library adds them.

        Args:
            columns: of each feature an array of the kernel's type, without gaps, all of one length.

        Returns:
            (rows, K)

        Raises:
            ValueError: columns of another number, type or form.
        """
        rows = len(columns[0]) if columns else 0
        fits = all(
            column.dtype == self._dtype and column.shape == (rows,) and column.flags.c_contiguous for column in columns
        )
        if not fits or len(columns) != self._forest.features:
            kinds = sorted({f"{column.dtype}{list(column.shape)}" for column in columns})
            raise ValueError(f"{self._forest.features} columns of {self._dtype}, not {len(columns)} of {kinds}")
        data = (ctypes.c_void_p * len(columns))(*(column.ctypes.data for column in columns))
        sums = np.empty((rows, len(self._forest.base)))
        parts = min(self._threads, max(1, rows // ROWS_A_THREAD))
        ends = [rows * part // parts for part in range(parts + 1)]

        def part(start: int, stop: int) -> None:
            room = np.empty(self._form.room, np.uint8)
            pointers = ctypes.c_void_p(room.ctypes.data), ctypes.c_void_p(sums.ctypes.data)
            forest = ctypes.byref(self._form.structure)
            self._run(forest, data, ctypes.c_int64(start), ctypes.c_int64(stop), *pointers)

        if parts == 1:
            part(0, rows)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads)
            list(self._pool.map(part, ends[:-1], ends[1:]))
        if self._forest.divisor != 1:
            sums /= self._forest.divisor
        return sums


def fastest(path: Path, forest: Forest, dtype: Dtype, threads: int = 1) -> Kernel:
    """The kernel that costs less for this forest on this processor; see :func:`masks`.

    Raises:
        SetupError: the library does not load on this machine.
    """
    return (
        masks(path, forest, dtype, threads)
        if _masks_pay(forest, dtype, widest(path))
        else walker(path, forest, dtype, threads)
    )


def masks(path: Path, forest: Forest, dtype: Dtype, threads: int = 1, level: Level | None = None) -> Kernel:
    """The kernel of bit masks.

    Args:
        path: the library that :func:`batchscore.engines.trees.library.build` made.
        forest: the model; its leaves hold one value each.
        dtype: of the rows.
        threads: among which the rows of a call are divided.
        level: of vectors; the processor's widest if it is None.

    Raises:
        SetupError: the library does not load on this machine.
    """
    library = _loaded(path)
    level = level or _widest(library)
    packed = masks_of(forest, dtype)
    kept = _kept(packed, target=forest.target, base=forest.base, bits=forest.words)
    counts = (len(forest.roots), len(packed.source), len(forest.base), len(packed.runs))
    rows = VECTORS * BYTES[level] // np.dtype(dtype).itemsize
    form = _Form(
        f"masks_{_kinds(forest, dtype)}_{level}",
        _Masks(*counts, **_addresses(_Masks, kept)),
        kept,
        len(packed.source) * (POINTER + VECTORS * BYTES[level]) + len(forest.base) * rows * SUM + BYTES[level],
    )
    return Kernel(library, form, forest, dtype, threads)


def walker(path: Path, forest: Forest, dtype: Dtype, threads: int = 1) -> Kernel:
    """The kernel that walks trees; see :func:`masks`.

    Raises:
        SetupError: the library does not load on this machine.
    """
    packed = pack(forest, dtype)
    kept = _kept(packed, target=forest.target, base=forest.base, values=forest.values, words=forest.words)
    counts = (len(forest.roots), len(packed.source), len(forest.base), forest.values.shape[1])
    form = _Form(
        f"walk_{_kinds(forest, dtype)}{'_sets' if len(forest.sets) else ''}",
        _Forest(*counts, **_addresses(_Forest, kept)),
        kept,
        WALKED * len(packed.source) * np.dtype(dtype).itemsize,
    )
    return Kernel(_loaded(path), form, forest, dtype, threads)


def widest(path: Path) -> Level:
    """The widest vectors that the library and this processor have.

    Raises:
        SetupError: the library does not load on this machine.
    """
    return _widest(_loaded(path))


def linked(path: Path, scores: Scores, sums: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The link's values of ``sums``, which it may overwrite, with libm as the model's library does.

    Returns:
        (rows, K) in the type of ``scores``.

    Raises:
        SetupError: the library does not load on this machine.
    """
    if scores.by_numpy or scores.link not in {"sigmoid", "softmax", "exp"}:
        return scores.linked(sums)
    function = _loaded(path)[f"{scores.link}_{'float' if scores.dtype == 'float32' else 'double'}"]
    function.restype = None
    pointer = ctypes.c_void_p(sums.ctypes.data)
    if scores.link == "softmax":
        function(pointer, ctypes.c_int64(len(sums)), ctypes.c_int32(sums.shape[1]))
    elif scores.link == "sigmoid":
        function(pointer, ctypes.c_int64(sums.size), ctypes.c_double(scores.scale))
    else:
        function(pointer, ctypes.c_int64(sums.size))
    return sums.astype(scores.dtype, copy=False)


def _masks_pay(forest: Forest, dtype: Dtype, level: Level) -> bool:
    if forest.values.shape[1] != 1:
        return False
    return size(forest, dtype) * MASK_COST[level] * np.dtype(dtype).itemsize < steps(forest)


def _widest(library: ctypes.CDLL) -> Level:
    return LEVELS[int(library.masks_level())]


def _kinds(forest: Forest, dtype: Dtype) -> str:
    return f"{'float' if dtype == 'float32' else 'double'}_{'float' if forest.sums == 'float32' else 'double'}"


def _kept(packed: Any, **more: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:  # noqa: ANN401  # a dataclass of arrays
    arrays = {name: getattr(packed, name) for name in packed.__slots__} | more
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _addresses(structure: type[ctypes.Structure], kept: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    wanted = [field[0] for field in structure._fields_ if field[1] is ctypes.c_void_p]
    return {name: kept[name].ctypes.data for name in wanted}


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise SetupError("the compiled model does not load on this machine", found=error, hint=HINT) from error
