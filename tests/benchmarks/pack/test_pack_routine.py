"""Packing is measured at every level and mode, beside a copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import record
from benchmarks.contenders.packing import PackCall
from benchmarks.pack import measure, table
from bitheads import kernels_info


def test_a_run_is_stored(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"layers": 2, "dim": 64, "rows": 2, "seq": 8}
    monkeypatch.setattr(measure, "SHAPES", {"tiny": tiny})
    assert command_line.main(["pack"]) == 0
    stored = record.read("pack")
    modes = stored["result"]["tiny"]["modes"]
    assert [*modes] == ["sign", "sign, vote", "uint8", "float16"]
    for by_level in modes.values():
        assert [*by_level] == [*kernels_info().supported_levels]
        assert all(found["times_a_copy"] > 0 for found in by_level.values())
    assert "| tiny | sign, vote | " in table.measured(stored)


@pytest.mark.parametrize("quantization", ["sign", "uint8", "float16"])
def test_every_level_writes_the_same_codes(quantization: str) -> None:
    layers = [np.random.default_rng(i).standard_normal((2, 3, 40), np.float32) for i in range(2)]
    found = []
    for level in kernels_info().supported_levels:
        call = PackCall(layers, quantization, level=level)
        call()
        found.append(call.codes)
    assert all(np.array_equal(codes, found[0]) for codes in found)
    if quantization == "sign":
        expected = np.packbits(layers[0] + layers[1] > 0, axis=-1).reshape(6, -1)
        np.testing.assert_array_equal(found[0], expected)
