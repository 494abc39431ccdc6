"""Random codes and heads."""

from __future__ import annotations

import numpy as np

from benchmarks.heads.cases import QUICK
from benchmarks.inputs.random_heads import random_heads, spec_of
from bitheads.engine import Quantization

SHAPE = QUICK.encoders["tiny"]
BOTH = [Quantization.SIGN, Quantization.UINT8]


def test_heads_differ_and_come_again() -> None:
    spec = spec_of(SHAPE, Quantization.SIGN)
    one, other = random_heads(spec, 4, 2)
    assert not np.array_equal(one.dense, other.dense)
    (again, _) = random_heads(spec, 4, 2)
    assert np.array_equal(one.dense, again.dense)
