"""grouped_dense, its source run on the host, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host_heads import Dense, GroupedDenseArgs, GuardedArray, HostHeads, Weights, aligned
from host_kernels import HostKernels, RefusedError
from kernel_cases import GuardedMemory
from numpy.typing import NDArray

KINDS = [("float16", False), ("float16", True), ("float32", False)]
SIZES = (1, 7, 24, 33, 64, 65, 100, 150, 384)


@pytest.fixture(scope="module")
def heads(host_kernels: HostKernels) -> HostHeads:
    return HostHeads(host_kernels)


class Case:
    """A group of random numbers, what it must give, and how far rounding may take it."""

    def __init__(
        self,
        heads: HostHeads,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        kind: tuple[str, bool],
        inputs: NDArray[np.float16] | None = None,
        outputs: NDArray[Any] | None = None,
        magnitude: float = 1,
    ) -> None:
        texts, n, k = shape
        output, tanh = kind
        if inputs is None:
            inputs = aligned(rng.normal(0, 1, (texts, k)).astype(np.float16))
        self._memory = GuardedArray((texts, n), np.dtype(output).type)
        self.outputs = self._memory.array if outputs is None else outputs
        weights = (rng.normal(0, k**-0.5, (n, k)) * magnitude).astype(np.float32)
        bias = (rng.normal(0, 1, n) * magnitude).astype(np.float32) if n % 2 else None
        self.group = Dense(inputs, heads.lay_out_dense(weights), bias, self.outputs)
        wide = inputs.astype(np.float64), weights.astype(np.float64).T
        self._expected = wide[0] @ wide[1] + (0 if bias is None else bias)
        # A weight's rounding, the tensor core's sums, and the float16 that is stored.
        sums = np.abs(wide[0]) @ np.abs(wide[1]) + (0 if bias is None else np.abs(bias))
        self._tolerance = sums * (2**-11 + k * 2**-22)
        if tanh:
            self._expected = np.tanh(self._expected)
        if output == "float16":
            self._tolerance += np.abs(self._expected) * 2**-11 + 2**-25

    def check(self) -> None:
        assert (np.abs(self.outputs - self._expected) <= self._tolerance).all()
        self._memory.check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [1, 17, 64, 65, 130])
def test_any_shape(heads: HostHeads, texts: int, kind: tuple[str, bool]) -> None:
    """Groups of all sizes in one launch."""
    rng = np.random.default_rng(texts)
    sizes = [*zip(SIZES, reversed(SIZES), strict=True), (150, 384), (2, 31), (2, 32), (65, 8)]
    cases = [Case(heads, rng, (texts, n, k), kind) for n, k in sizes]
    heads.grouped_dense([case.group for case in cases], texts, tanh=kind[1], output=kind[0])
    for case in cases:
        case.check()


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_outputs_are_slices(heads: HostHeads, kind: tuple[str, bool]) -> None:
    """As the value projection has them: a pooled column in, an attention head's slice out."""
    rng = np.random.default_rng(0)
    texts, columns, dim, n = 5, 3, 33, 11
    pooled = aligned(rng.normal(0, 1, (texts, columns, 64)).astype(np.float16))
    pooled[:, :, dim:] = np.nan  # never read
    inner = GuardedArray((texts, columns * n), np.dtype(kind[0]).type)
    cases = [
        Case(
            heads,
            rng,
            (texts, n, dim),
            kind,
            pooled[:, column, :dim],
            inner.array[:, column * n : column * n + n],
        )
        for column in range(columns)
    ]
    heads.grouped_dense([case.group for case in cases], texts, tanh=kind[1], output=kind[0])
    for case in cases:
        case.check()
    inner.check()


@pytest.mark.parametrize("shift_bytes", [0, 2, 8])
@pytest.mark.parametrize("row", [64, 65, 72])
def test_any_address(heads: HostHeads, row: int, shift_bytes: int) -> None:
    rng = np.random.default_rng(1)
    inputs = aligned(rng.normal(0, 1, (20, row)).astype(np.float16), shift_bytes)
    case = Case(heads, rng, (20, 9, 63), ("float32", False), inputs[:, :63])
    heads.grouped_dense([case.group], 20, output="float32")
    case.check()


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(("texts", "n", "k"), [(5, 9, 40), (70, 66, 33), (1, 1, 1), (64, 64, 32)])
def test_stays_between_forbidden_pages(
    heads: HostHeads, texts: int, n: int, k: int, end: bool
) -> None:
    rng = np.random.default_rng(6)

    def guarded(array: NDArray[Any]) -> NDArray[Any]:
        memory = GuardedMemory(array.nbytes)
        return memory.at_end(array) if end else memory.at_start(array)

    inputs = guarded(rng.normal(0, 1, (texts, k)).astype(np.float16))
    laid_out = heads.lay_out_dense(rng.normal(0, 1, (n, k)).astype(np.float32))
    weights = Weights(guarded(laid_out.halves), guarded(laid_out.scale), k)
    bias = guarded(rng.normal(0, 1, n).astype(np.float32))
    outputs = guarded(np.zeros((texts, n), np.float32))
    heads.grouped_dense([Dense(inputs, weights, bias, outputs)], texts, output="float32")
    same = GuardedArray((texts, n), np.float32).array
    heads.grouped_dense([Dense(inputs.copy(), laid_out, bias, same)], texts, output="float32")
    np.testing.assert_array_equal(outputs, same)


@pytest.mark.parametrize("magnitude", [1e-40, 1e-30, 1e-6, 1e6, 1e30])
def test_weights_of_any_magnitude(heads: HostHeads, magnitude: float) -> None:
    rng = np.random.default_rng(2)
    case = Case(heads, rng, (4, 6, 40), ("float32", False), magnitude=magnitude)
    case._tolerance += 2.0**-149  # where the sum is a subnormal
    heads.grouped_dense([case.group], 4, output="float32")
    case.check()


def test_tanh_saturates_and_keeps_small_numbers(heads: HostHeads) -> None:
    values = np.array([-60000, -20, -1, -1e-4, 0, 6e-8, 1e-3, 0.5, 3, 12, 60000], np.float16)
    outputs = GuardedArray((len(values), 1), np.float16)
    weights = heads.lay_out_dense(np.ones((1, 1), np.float32))
    group = Dense(values[:, np.newaxis].copy(), weights, None, outputs.array)
    heads.grouped_dense([group], len(values), tanh=True)
    expected = np.tanh(values.astype(np.float64)).astype(np.float16)
    np.testing.assert_array_equal(outputs.array[:, 0], expected)


def test_a_text_is_the_same_alone(heads: HostHeads) -> None:
    rng = np.random.default_rng(3)
    inputs = rng.normal(0, 1, (70, 100)).astype(np.float16)
    weights = heads.lay_out_dense(rng.normal(0, 0.1, (40, 100)).astype(np.float32))
    together = GuardedArray((70, 40), np.float32).array
    heads.grouped_dense([Dense(inputs, weights, None, together)], 70, output="float32")
    for text in (0, 15, 16, 63, 64, 69):
        alone = GuardedArray((1, 40), np.float32).array
        one = np.ascontiguousarray(inputs[text : text + 1])
        heads.grouped_dense([Dense(one, weights, None, alone)], 1, output="float32")
        np.testing.assert_array_equal(alone[0].view(np.uint32), together[text].view(np.uint32))


def test_order_of_threads_does_not_matter(host_kernels: HostKernels, heads: HostHeads) -> None:
    """A missing barrier shows in one of two orders, see tests/cuda/host/block.h."""
    for reverse in (True, False):
        host_kernels.run_in_reverse(reverse)
        try:
            case = Case(heads, np.random.default_rng(4), (70, 70, 200), ("float16", True))
            heads.grouped_dense([case.group], 70, tanh=True)
            case.check()
        finally:
            host_kernels.run_in_reverse(False)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_refuses_weights_that_are_no_numbers(heads: HostHeads, wrong: float) -> None:
    weights = np.ones((3, 40), np.float32)
    weights[1, 7] = wrong
    with pytest.raises(RefusedError, match="1"):
        heads.lay_out_dense(weights)


def test_nothing_to_multiply(heads: HostHeads) -> None:
    heads.grouped_dense([], 3)
    case = Case(heads, np.random.default_rng(5), (0, 3, 4), ("float16", False))
    heads.grouped_dense([case.group], 0)
    case.check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_groups": 65536},
        {"num_groups": -1},
        {"texts": 65535 * 64 + 1},
        {"texts": -1},
        {"largest_n": -1},
        {"largest_n": 2**31},
        {"kind": 3},
    ],
)
def test_refuses_what_one_launch_cannot_do(heads: HostHeads, wrong: dict[str, int]) -> None:
    right = {"num_groups": 1, "largest_n": 1, "texts": 0}
    heads.launch(GroupedDenseArgs(**right))
    with pytest.raises(RefusedError, match="1"):
        heads.launch(GroupedDenseArgs(**{**right, **wrong}))
