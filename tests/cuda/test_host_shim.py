"""What runs kernels on the host reports their mistakes, and multiplies as tensor cores do."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from host_kernels import GridError, HostKernels
from numpy.typing import NDArray

WARP, BLOCK = (32, 1, 1), (64, 1, 1)


class _Args(ctypes.Structure):
    _fields_ = (("input", ctypes.c_void_p), ("output", ctypes.c_void_p))


def run(
    kernels: HostKernels, name: str, block: tuple[int, int, int], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    output = np.zeros(128, np.float32)
    kernels.run(name, _Args(values.ctypes.data, output.ctypes.data), block)
    return output


@pytest.mark.parametrize("reverse", [False, True])
def test_a_barrier_keeps_the_order(host_kernels: HostKernels, reverse: bool) -> None:
    """Without it one of the two orders reads what was not written: shared memory is poisoned."""
    values = np.arange(1, 65, dtype=np.float32)
    host_kernels.run_in_reverse(reverse)
    try:
        right = run(host_kernels, "shim_rotate", BLOCK, values)[:64]
        wrong = run(host_kernels, "shim_rotate_without_barrier", BLOCK, values)[:64]
    finally:
        host_kernels.run_in_reverse(False)
    np.testing.assert_array_equal(right, np.roll(values, -1))
    assert np.isnan(wrong).sum() == (1 if reverse else 63)


@pytest.mark.parametrize(
    ("name", "block", "message"),
    [
        ("shim_some_leave_before_a_barrier", BLOCK, "__syncthreads: 32 of 64 threads wait"),
        ("shim_warp_diverges", WARP, "a warp diverged: 16 of 32 lanes"),
        ("shim_warp_meets_in_two_places", WARP, "a warp diverged: 32 of 32 lanes"),
        ("shim_rotate", (48, 1, 1), "48 threads, expected a multiple of 32"),
        ("shim_nothing", WARP, "no kernel has the name shim_nothing"),
    ],
)
def test_mistakes_are_reported(
    host_kernels: HostKernels, name: str, block: tuple[int, int, int], message: str
) -> None:
    values = np.zeros(64, np.float32)
    with pytest.raises(GridError, match=message):
        run(host_kernels, name, block, values)
    run(host_kernels, "shim_rotate", BLOCK, values)  # and nothing is left behind


def test_products_of_matrices(host_kernels: HostKernels) -> None:
    """Exact where nothing is cut off; subnormals, powers of two apart, count."""
    rng = np.random.default_rng(0)
    a = rng.integers(-8, 9, (16, 16)).astype(np.float32) * np.float32(2**10)
    b = rng.integers(0, 9, (16, 8)).astype(np.float32) * np.float32(2**-24)
    got = run(host_kernels, "shim_multiply", WARP, np.concatenate([a.ravel(), b.ravel()]))
    np.testing.assert_array_equal(got.reshape(16, 8), a @ b)


def test_sums_are_cut_off(host_kernels: HostKernels) -> None:
    """1 + 2^-24 eight times: each of the small ones lies below the last place of the large one."""
    a = np.zeros((16, 16), np.float32)
    a[:, 0] = 1
    a[:, 1:8] = 2**-12
    b = np.full((16, 8), 2**-12, np.float32)
    b[0] = 1
    got = run(host_kernels, "shim_multiply", WARP, np.concatenate([a.ravel(), b.ravel()]))
    np.testing.assert_array_equal(got, np.ones(128, np.float32))
