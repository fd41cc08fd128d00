"""Equal means the same bits."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.arrow.bits import largest_difference, same_bits

NAN = float("nan")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (pa.array([1.0, NAN, None, 0.0, 0.1]), pa.array([1.0, NAN, None, -0.0, 0.1 + 2**-56]), [1, 1, 1, 0, 0]),
        (pa.array([1.0, None], pa.float32()), pa.array([1.0, 2.0], pa.float32()), [1, 0]),
        (pa.array(["a", None, ""]), pa.array(["a", None, None]), [1, 1, 0]),
        (pa.array([1, 2]), pa.array([1, 3]), [1, 0]),
        (pa.array([1, 2], pa.int32()), pa.array([1, 2], pa.int64()), [0, 0]),
        (pa.array([True, None, False]), pa.array([True, None, True]), [1, 1, 0]),
        (
            pa.array([[1.0, NAN], [], None, [1.0], [0.0], [1.0, 2.0]]),
            pa.array([[1.0, NAN], [], None, [1.0, 2.0], [-0.0], [1.0, 3.0]]),
            [1, 1, 1, 0, 0, 0],
        ),
    ],
)
def test_each_type(left, right, expected):
    assert same_bits(left, right).tolist() == [bool(flag) for flag in expected]
    offset = slice(1, None)
    assert same_bits(left[offset], right[offset]).tolist() == [bool(flag) for flag in expected[1:]]


@given(st.lists(st.floats(allow_nan=True), min_size=1), st.lists(st.floats(allow_nan=True), min_size=1))
def test_as_the_bytes_say(first, second):
    size = min(len(first), len(second))
    left, right = np.array(first[:size]), np.array(second[:size])
    expected = [a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True)]
    assert same_bits(pa.array(left), pa.array(right)).tolist() == expected


def test_largest_difference():
    assert largest_difference(pa.array([1.0, 2.0]), pa.array([1.5, 2.0])) == 0.5
    assert largest_difference(pa.array([1.0, NAN]), pa.array([1.0, 2.0])) == float("inf")
    assert largest_difference(pa.array([NAN, 1.0]), pa.array([NAN, 1.0])) == 0.0
    assert largest_difference(pa.array([1, 5]), pa.array([3, 5])) == 2.0
    assert largest_difference(pa.array(["a"]), pa.array(["b"])) is None
    assert largest_difference(pa.array([[1.0, 2.0]]), pa.array([[1.0, 4.0]])) == 2.0
    assert largest_difference(pa.array([[1.0]]), pa.array([[1.0, 4.0]])) == float("inf")
