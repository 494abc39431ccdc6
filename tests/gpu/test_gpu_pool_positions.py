"""On the GPU itself: the bits of the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from on_gpu import OnGpu
from pooling_cases import DTYPES, expected, make_states

from bitheads.engine.features.embedding import POOLINGS

SHAPES = ((7, 40, 131), (32, 512, 1024), (3, 6000, 32))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_to_the_reference(gpu: Any, dtype: str, pooling: str) -> None:
    rng = np.random.default_rng(0)
    for rows, seq, dim in SHAPES:
        lengths = rng.integers(0, seq + 1, rows)
        lengths[:3] = seq, 1, 0
        states = make_states(rng, (rows, seq, dim), dtype)
        for row, length in enumerate(lengths):
            states[row, length:] = np.nan  # is never read
        on_gpu = OnGpu(gpu)
        pooled = on_gpu.pool_positions(states, lengths, pooling)
        assert on_gpu.kernels == {f"pool_positions_{dtype}"}
        np.testing.assert_array_equal(pooled, expected(states, lengths, pooling))
