"""pool_positions' source, run on the host, gives the bits of the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import HostKernels, RefusedError
from pooling_cases import DTYPES, expected, make_states

from bitheads.engine.features.embedding import POOLINGS, pool

LENGTHS = np.array([40, 1, 0, 17, 16, 2, 33])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_reference(host_kernels: HostKernels, dtype: str, pooling: str) -> None:
    rng = np.random.default_rng(0)
    for dim in (2, 64, 131):
        states = make_states(rng, (len(LENGTHS), 40, dim), dtype)
        pooled = np.full((len(LENGTHS), dim + 3), 7, np.float32)  # a part of longer rows
        ran = host_kernels.pool_positions(states, LENGTHS, pooling, pooled[:, :dim])
        assert ran.kernel == f"pool_positions_{dtype}"
        np.testing.assert_array_equal(pooled[:, :dim], expected(states, LENGTHS, pooling))
        assert (pooled[:, dim:] == 7).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_long_text(host_kernels: HostKernels, pooling: str) -> None:
    """Where the sum of the weights, 18,003,000, is no float32 any more."""
    states = make_states(np.random.default_rng(1), (1, 6001, 3), "float16")
    pooled = np.empty((1, 3), np.float32)
    lengths = np.array([6000])
    host_kernels.pool_positions(states, lengths, pooling, pooled)
    np.testing.assert_array_equal(pooled, expected(states, lengths, pooling))
    if pooling in ("mean", "weightedmean"):
        backwards = pool(states[0, :6000][::-1].astype(np.float32), "mean")
        assert not np.array_equal(pooled[0], backwards)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_everything_is_read_once_and_no_padding(host_kernels: HostKernels, pooling: str) -> None:
    """And numbers that are none stay what they are."""
    dim = 40
    states = make_states(np.random.default_rng(2), (len(LENGTHS), 48, dim), "float16")
    for row, length in enumerate(LENGTHS):
        states[row, length:] = np.nan
    states[0, 5, 3], states[0, 39, 4], states[0, 7, 5] = np.nan, np.nan, np.inf
    strided = states[:, :40][::-1]
    pooled = np.empty((len(LENGTHS), dim), np.float32)
    lengths = LENGTHS[::-1].copy()
    ran = host_kernels.pool_positions(strided, lengths, pooling, pooled)
    np.testing.assert_array_equal(pooled, expected(strided, lengths, pooling))
    assert np.isnan(pooled[-1]).sum() == {"cls": 0, "lasttoken": 1}.get(pooling, 2)
    read = np.minimum(lengths, 1) if pooling in ("cls", "lasttoken") else lengths
    of_lengths = 8 * dim * len(lengths)  # by each thread that has a feature
    assert ran.loaded_bytes == 2 * dim * read.sum() + of_lengths


@pytest.mark.parametrize("lengths", [[3, 5], [-1, 2]])
def test_lengths_that_are_none(host_kernels: HostKernels, lengths: list[int]) -> None:
    states, pooled = np.zeros((2, 4, 8), np.float32), np.empty((2, 8), np.float32)
    with pytest.raises(RefusedError):
        host_kernels.pool_positions(states, np.array(lengths), "mean", pooled)


def test_states_between_two_items_are_refused(host_kernels: HostKernels) -> None:
    memory = np.zeros(2 * 4 * 8 * 4 + 2, np.uint8)
    states = memory[2:].view(np.float32).reshape(2, 4, 8)
    with pytest.raises(RefusedError):
        host_kernels.pool_positions(states, np.array([1, 2]), "mean", np.empty((2, 8), np.float32))
